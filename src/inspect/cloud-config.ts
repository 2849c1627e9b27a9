import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { JsonObject } from '../domain/json.ts';
import { isTaken, isTakenInNetwork } from './cloud-config-taken.ts';
import { findBootTraps } from './cloud-config-values.ts';
import type { Path } from './json-schema.ts';
import { type DocumentPlaces, findPlaces } from './places.ts';
import { inOrder, notJudged, type Remark, showKey, toFindings } from './remark.ts';
import { judgeBySchema, type SchemaSet, type Schemas, type UnusableSchema } from './schema.ts';
import { matchPrefix } from './sniff.ts';
import { closestKey } from './spelling.ts';
import { holdsTooMuch, isMapping, readYaml } from './yaml.ts';

/**
 * Judges a cloud-config, an archive or a patch of them: whether cloud-init can read it at all (it drops one that it cannot with no more than a
 * warning in the machine's log: handlers/cloud_config.py, user_data.py), whether its own schema takes it, and what it would lose or misread.
 * @param schemas where there is none keys at the top are held against a list of names
 * @param pause awaited between the steps of a long text and between an archive's entries, so that others get their turn
 * @returns findings, with line and column (1-based) where they are known; none for another type
 */
export async function inspectCloudConfig(
  filename: string,
  type: string,
  body: Uint8Array,
  schemas: Schemas,
  pause: Pause = async () => {},
): Promise<Finding[]> {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  const inspect = INSPECTORS.get(type);
  return inspect ? inspect(filename, text, schemas, pause) : [];
}

type Pause = () => Promise<void>;
type Inspector = (filename: string, text: string, schemas: Schemas, pause: Pause) => Finding[] | Promise<Finding[]>;

const INSPECTORS: ReadonlyMap<string, Inspector> = new Map<string, Inspector>([
  ['text/cloud-config', inspectConfig],
  ['text/cloud-config-archive', inspectArchive],
  ['text/cloud-config-jsonp', inspectPatch],
]);

/**
 * Judges an instance's network configuration, of version 1 or 2 (net/network_state.py): a text is placed, an object has no places.
 * A version 2 goes to netplan where there is one, which knows more keys than cloud-init's schema (config/schema.py).
 */
export async function inspectNetworkConfig(networkConfig: string | JsonObject, schemas: Schemas): Promise<Finding[]> {
  const part = 'network-config';
  const source = typeof networkConfig === 'string' ? networkConfig : null;
  if (source !== null && holdsTooMuch(source)) return [notJudged(part, TOO_MUCH)];
  const { document, findings } = source === null ? { document: networkConfig, findings: [] } : readOne(part, source);
  if (findings.length > 0 || document === null) return findings;
  const places = source === null ? null : (findPlaces(source)[0] ?? null);
  const refuse = (code: string, message: string, path: Path = []) =>
    toFindings(part, [{ severity: 'error', code, path, message }], places);
  const network = isMapping(document) && Object.hasOwn(document, 'network') ? document.network : document;
  if (!isMapping(document) || !isMapping(network)) return refuse('not_a_mapping', 'a network configuration is a mapping');
  if (network.config === 'disabled') return [];
  const { version } = network;
  if (version !== 1 && version !== 2)
    return refuse(
      'bad_version',
      'a network configuration needs version: 1 or version: 2, as a number',
      network === document ? ['version'] : ['network', 'version'],
    );
  const set = usable(schemas);
  const validator = version === 1 ? set?.networkV1 : set?.networkV2;
  if (!validator) return [];
  const remarks = judgeBySchema(validator, {
    document,
    plain: (path) => places?.plain(path) ?? null,
    taken: (problem) => isTakenInNetwork(problem, valueAt(document, problem.path)),
    skipTop: false,
    lenient: version === 2,
  });
  return toFindings(part, remarks, places);
}

async function inspectConfig(filename: string, text: string, schemas: Schemas, pause: Pause): Promise<Finding[]> {
  if (holdsTooMuch(text)) return [notJudged(filename, TOO_MUCH)];
  await pause();
  const { document: config, findings: unread } = readOne(filename, text);
  if (unread.length > 0) return unread;
  if (config === null) return finding('warning', 'empty_config', filename, 'the cloud-config says nothing');
  if (!isMapping(config))
    return finding('error', 'not_a_mapping', filename, 'a cloud-config is a mapping, KEY: VALUE lines at its top');

  await pause();
  const places = findPlaces(text)[0] ?? null;
  await pause();
  const traps = findBootTraps(config, (path) => places?.plain(path) ?? null);
  // What a trap tells it tells better.
  const told = new Set(
    traps
      .filter(({ severity, code }) => severity === 'error' || code === 'unknown_key')
      .map(({ path }) => JSON.stringify(path)),
  );
  const set = usable(schemas);
  const { unknown, untold } = topKeys(config, set);
  const judged = [...unknown, ...(set ? bySchema(config, places, set) : [])];
  const remarks = [...traps, ...judged.filter(({ path }) => !told.has(JSON.stringify(path)))];
  const findings = inOrder([...toFindings(filename, remarks, places, untold), ...repeatedKeys(filename, places)]);
  if (schemas === null || schemas.source === null) findings.push(withoutSchema(filename, schemas));
  return findings;
}

function usable(schemas: Schemas): SchemaSet | null {
  return schemas === null || schemas.source === null ? null : schemas;
}

function withoutSchema(part: string, schemas: UnusableSchema | null): Finding {
  const looked = 'only the names of top-level keys were looked at';
  return schemas === null
    ? {
        severity: 'warning',
        code: 'schema_missing',
        part,
        message: `${looked}, for there is no schema yet: run ${UPDATE}`,
      }
    : { severity: 'warning', code: 'schema_unusable', part, message: `${looked}, for ${schemas.unusable}` };
}

const TOO_MUCH = 'it is not judged: it has more keys and values than are looked at';

/** The one command that gets a schema. */
const UPDATE = 'npm run bootbundle -- schema update';

/** How many repeated keys are told of. */
const MAX_REPEATED = 10;

/** PyYAML, too, lets the last one win without a word. */
function repeatedKeys(part: string, places: DocumentPlaces | null): Finding[] {
  return (places?.repeated(MAX_REPEATED) ?? []).map(({ key, place }) => ({
    severity: 'warning',
    code: 'duplicate_key',
    part,
    ...(place ?? {}),
    message: `${showKey(key)} stands here a second time, and what the earlier one says is lost: make one of the two`,
  }));
}

function bySchema(config: Record<string, unknown>, places: DocumentPlaces | null, { cloudConfig }: SchemaSet): Remark[] {
  const plain = (path: Path) => places?.plain(path) ?? null;
  return judgeBySchema(cloudConfig, {
    document: config,
    plain,
    taken: (problem) => isTaken(problem, valueAt(config, problem.path), plain(problem.path)),
    skipTop: true,
    lenient: false,
  });
}

/** The top-level keys of cloud-init 26.2 (config/schemas/schema-cloud-config-v1.json). */
const KNOWN_KEYS =
  `allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update apt_upgrade authkey_hash
  autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules cloud_final_modules cloud_init_modules
  create_hostname_file device_aliases disable_ec2_metadata disable_root disable_root_opts disk_setup drivers fan final_message fqdn fs_setup
  groups growpart grub-dpkg grub_dpkg hostname keyboard landscape launch-index locale locale_configfile lxd manage_etc_hosts
  manage_resolv_conf mcollective merge_how merge_type migrate mount_default_fields mounts no_ssh_fingerprints ntp output
  package_reboot_if_required package_update package_upgrade packages password phone_home power_state prefer_fqdn_over_hostname
  preserve_hostname puppet random_seed reporting resize_rootfs resolv_conf rh_subscription rpi rsyslog runcmd salt_minion snap spacewalk ssh
  ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id ssh_key_console_blacklist ssh_keys
  ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap system_info timezone ubuntu_advantage ubuntu_pro updates user users vendor_data version
  wireguard write_files yum_repo_dir yum_repos zypper`.split(/\s+/);
/** Older versions read them without having them in their schema (cc_apt_configure.py, convert_v2_to_v3_apt_format; cc_ubuntu_advantage.py). */
const OLDER_KEYS = new Set(
  `add_apt_repo_match apt_custom_sources_list apt_ftp_proxy apt_http_proxy apt_https_proxy apt_mirror apt_mirror_search
  apt_mirror_search_dns apt_preserve_sources_list apt_proxy apt_sources ubuntu-advantage`.split(/\s+/),
);

/** As keys begin that only hold anchors for others. */
const HOLDER = /^(?:x-|[._])/;
/** So many unknown keys are looked at; the others are counted. */
const MAX_UNKNOWN = 500;

/** An unknown key is ignored. A part handler, a module or another version may know it, so it is no error unless a known one was meant. */
function topKeys(config: Record<string, unknown>, schemas: SchemaSet | null): { unknown: Remark[]; untold: number } {
  const known = new Set([...KNOWN_KEYS, ...(schemas?.cloudConfig.keys ?? [])]);
  const keys = Object.keys(config).filter((key) => !known.has(key));
  const unknown = keys.slice(0, MAX_UNKNOWN).map((key): Remark => {
    const meant = OLDER_KEYS.has(key) || HOLDER.test(key) ? null : closestKey(key, known);
    const name = `${showKey(key)} is no key that cloud-init knows`;
    const hint = OLDER_KEYS.has(key)
      ? `${showKey(key)} is a key of old versions of cloud-init only: say it the new way`
      : `${name}, so it is ignored, unless a module of your own reads it`;
    return {
      severity: meant === null ? 'warning' : 'error',
      code: 'unknown_key',
      path: [key],
      what: 'key',
      message: meant === null ? hint : `${name}: did you mean ${meant}?`,
    };
  });
  return { unknown, untold: keys.length - unknown.length };
}

/** So many entries of an archive are looked at. */
const MAX_ENTRIES = 1_000;

/** user_data.py, _explode_archive: what it cannot take there is an exception, and with it all user-data is lost. */
async function inspectArchive(filename: string, text: string, schemas: Schemas, pause: Pause): Promise<Finding[]> {
  if (holdsTooMuch(text)) return [notJudged(filename, TOO_MUCH)];
  await pause();
  const { document: archive, findings } = readOne(filename, text);
  if (findings.length > 0) return findings;
  if (archive === null) return finding('warning', 'empty_config', filename, 'the archive has nothing in it');
  if (!Array.isArray(archive)) return finding('error', 'not_a_list', filename, 'a cloud-config archive is a list of parts');
  const places = findPlaces(text)[0] ?? null;
  // Aliases can bring the same text again and again.
  const inspected = new Map<string, Finding[]>();
  const inspect = async (type: string, content: string) => {
    const key = `${type} ${content}`;
    const found = inspected.get(key) ?? (await INSPECTORS.get(type)?.(filename, content, schemas, pause)) ?? [];
    inspected.set(key, found);
    return found;
  };
  const remarks: Remark[] = [];
  for (const [index, entry] of archive.slice(0, MAX_ENTRIES).entries()) {
    await pause();
    remarks.push(...(await inspectEntry(entry, index, inspect)));
  }
  if (archive.length > MAX_ENTRIES)
    remarks.push({
      severity: 'warning',
      code: 'not_fully_judged',
      path: [],
      message: `only its first ${MAX_ENTRIES} entries were looked at`,
    });
  // Of every entry the same: once will do.
  const isMissing = ({ code }: Remark) => code === 'schema_missing' || code === 'schema_unusable';
  const missing = remarks.findIndex(isMissing);
  return toFindings(
    filename,
    remarks.filter((remark, at) => !isMissing(remark) || at === missing),
    places,
  );
}

async function inspectEntry(
  entry: unknown,
  index: number,
  inspect: (type: string, content: string) => Promise<Finding[]>,
): Promise<Remark[]> {
  const name = `entry ${index + 1}`;
  const remark = (severity: Finding['severity'], code: string, message: string, path: Path = [index]): Remark[] => [
    { severity, code, path, message: `${name}: ${message}` },
  ];
  if (typeof entry !== 'string' && !isMapping(entry))
    return remark('warning', 'ignored_entry', 'it is neither a text nor a mapping with content, and so passed over');
  const { content = '', type } = isMapping(entry) ? entry : { content: entry };
  if (type && (typeof type !== 'string' || !type.includes('/')))
    return remark('error', 'bad_type', 'its type is not TYPE/SUBTYPE, and all user-data is lost with it', [index, 'type']);
  if (typeof content !== 'string' && !(content instanceof Uint8Array))
    return remark(
      'error',
      'bad_content',
      'its content is no text, and all user-data is lost with it: put a | behind content:',
      [index, 'content'],
    );
  if (isMapping(entry) && content === '') return remark('warning', 'empty_config', 'it has no content');
  if (typeof content !== 'string') return [];
  const taken = type ? String(type).toLowerCase() : (matchPrefix(content) ?? 'text/cloud-config');
  // An archive in an archive is not unpacked, and the places in an entry are not those of the file.
  if (taken !== 'text/cloud-config' && taken !== 'text/cloud-config-jsonp') return [];
  return (await inspect(taken, content)).map(({ severity, code, message }) => ({
    severity,
    code,
    path: isMapping(entry) ? [index, 'content'] : [index],
    message: `${name}: ${message.replace(/line \d+, column \d+: /, '')}`,
  }));
}

/** RFC 6902, section 4; jsonpatch, as handlers/cloud_config.py uses it, drops a patch with a wrong operation as a whole. */
const OPERATIONS: ReadonlyMap<unknown, readonly string[]> = new Map([
  ['add', ['value']],
  ['remove', []],
  ['replace', ['value']],
  ['move', ['from']],
  ['copy', ['from']],
  ['test', ['value']],
]);

function inspectPatch(filename: string, text: string): Finding[] {
  const error = (code: string, message: string) => finding('error', code, filename, message);
  let patch: unknown;
  try {
    patch = JSON.parse(text.trimStart().replace(/^#cloud-config-jsonp/, ''));
  } catch {
    return error('bad_json', 'what follows #cloud-config-jsonp (in small letters) is not JSON');
  }
  if (!Array.isArray(patch)) return error('not_a_list', 'a JSON patch is a list of operations (RFC 6902)');
  const isPointer = (value: unknown) => typeof value === 'string' && /^(?:\/|$)/.test(value);
  for (const [index, operation] of patch.entries()) {
    const name = `operation ${index + 1}`;
    const needs = isMapping(operation) ? OPERATIONS.get(operation.op) : undefined;
    if (!isMapping(operation) || !needs)
      return error('bad_operation', `${name} needs an op: ${[...OPERATIONS.keys()].join(', ')}; the whole patch is dropped`);
    if (!isPointer(operation.path))
      return error('bad_operation', `${name} needs a path that begins with /; the whole patch is dropped`);
    const lacks = needs.find((key) => !Object.hasOwn(operation, key) || (key === 'from' && !isPointer(operation.from)));
    if (lacks !== undefined)
      return error(
        'bad_operation',
        `${name} needs ${lacks === 'from' ? 'a from that begins with /' : `a ${lacks}`}; the whole patch is dropped`,
      );
  }
  return [];
}

/** The one document of a text, or why it cannot be read. */
function readOne(part: string, text: string): { document: unknown; findings: Finding[] } {
  try {
    return { document: readYaml(text)[0], findings: [] };
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    const [{ line, column } = {}] = error.findings ?? [];
    const place = line !== undefined && column !== undefined ? { line, column } : {};
    return { document: null, findings: [{ severity: 'error', code: 'bad_yaml', part, ...place, message: error.message }] };
  }
}

function finding(severity: Finding['severity'], code: string, part: string, message: string): Finding[] {
  return [{ severity, code, part, message }];
}

function valueAt(document: unknown, path: Path): unknown {
  return path.reduce<unknown>((at, step) => (at as Record<string | number, unknown> | null)?.[step], document);
}
