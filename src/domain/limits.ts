/** Nothing grows without bound. Past a limit the answer is a clear 413 or 422, and nothing is stored. */
export const LIMITS = {
  /** One part's body, bytes. */
  partBytes: 4 * 1024 * 1024,
  /** One rendered document, bytes before compression. */
  documentBytes: 16 * 1024 * 1024,
  /** What is served all the same, once bundles have grown: refusing would cost a machine its users and keys. */
  servedBytes: 64 * 1024 * 1024,
  /** One bundle's parts together: so many bytes of base64 still fit into a document. */
  bundleBytes: 11 * 1024 * 1024,
  /** A bundle's vars as JSON; each of its revisions holds them. */
  varsBytes: 64 * 1024,
  /** One secret's value, and how many a bundle or an instance may have. */
  secretBytes: 64 * 1024,
  secretsPerOwner: 256,
  /** Replaced values of a bundle's or an instance's secrets that are kept for replays, the newest. */
  oldSecretsPerOwner: 1000,
  /** One value put by itself (`…/vars/{key}`). */
  varBytes: 64 * 1024,
  /** What a revision's author may say of it, characters. */
  messageLength: 500,
  /** What one template may render to, bytes. */
  templateBytes: 4 * 1024 * 1024,
  /** How long one template may take: at a write, where each machine's is tried, and at a machine's fetch. Milliseconds. */
  templateTrialMs: 50,
  templateFetchMs: 2000,
  /** Parts in one bundle. */
  partsPerBundle: 256,
  /** The body of a whole-bundle PUT or POST: what a document may hold, plus base64 and framing. */
  bundleBodyBytes: 24 * 1024 * 1024,
  /** A JSON or YAML body about one instance. */
  instanceBodyBytes: 1024 * 1024,
  /** A body that lists instances, and how many it may list. */
  instanceListBytes: 16 * 1024 * 1024,
  instancesPerList: 10_000,
  /** Bundles one instance may refer to. */
  bundlesPerInstance: 64,
  /** API tokens that are neither revoked nor expired. */
  livingTokens: 1000,
  /** A list's page. */
  pageDefault: 100,
  pageMax: 1000,
  /** What one instance may have reported: events and manifests together, phone-homes, and ends of each log. */
  reportsPerInstance: 2000,
  phoneHomesPerInstance: 10,
  tailsPerLog: 3,
  /** How big one report may be: an event, anything else. */
  eventBytes: 16 * 1024,
  reportBytes: 64 * 1024,
  /** Of one instance's deliveries so many stay in the ledger, the newest (and all of the last hour). */
  deliveriesPerInstance: 10_000,
  /** How many reports a machine may send at once, and how many a second from then on; a first boot sends about 70. */
  reportBurst: 300,
  reportsPerSecond: 10,
  /** Operators that follow timelines, and that wait for machines, at one time in one process. */
  followers: 200,
  waiters: 1000,
  /** The longest that one call waits, milliseconds. */
  waitMs: 60 * 60 * 1000,
  /** Nova's user_data: 65,535 characters of base64 hold this many bytes (CLOUD-INIT: nova/conf and api schema). */
  novaUserDataBytes: 49_149,
} as const;
