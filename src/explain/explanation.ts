import type { Finding } from '../domain/finding.ts';

/** The clients there are explanations for. What differs between 22.4 and 25.1 was tried; 26.2 is taken to be as 25.1. */
export type ClientVersion = '22.4' | '25.1' | '26.2';

/** Of what cloud-init will do. `logged`: it says so itself, as a warning in the machine's log; else it happens without a word. */
export interface Remark extends Finding {
  logged: boolean;
}

/** Who deals with a part: cloud-init itself, a part handler of the document, or nobody. */
export type Taker =
  | { kind: 'cloud-config' | 'script' | 'boothook' | 'jinja' | 'part-handler' | 'include' | 'archive' }
  | { kind: 'handler'; filename: string }
  /** Nobody, unless a part handler takes it whose types cannot be read. */
  | { kind: 'nobody' };

export interface ExplainedPart {
  /** As cloud-init names it: a part without a name gets `part-NNN`. */
  filename: string;
  /** As cloud-init ends up treating it. */
  type: string;
  /** As sent; null when nothing was said. */
  saidType: string | null;
  /** Content-Transfer-Encoding as sent. */
  encoding: string | null;
  /** Bytes, decoded. */
  size: number;
  /** The merge rule in its header. */
  merge: string | null;
  /** Its Launch-Index; most datasources do not heed it. */
  launchIndex: string | null;
  /** `bundle@revision/part`, where it is known. */
  origin: string | null;
  takenBy: Taker;
}

export interface ExplainedHandler {
  filename: string;
  origin: string | null;
  /** What its `list_types` returns; null when that cannot be read from its source. */
  types: string[] | null;
  /** Of `handle_part`'s arguments: 1, 2 or 3; null when it cannot be read. */
  version: number | null;
  /** Whether cloud-init registers it: not when it cannot be imported or has no `list_types`. */
  registered: boolean;
  /** File names of the parts it is called with. */
  takes: string[];
  /** Types that a later handler takes over, and which. */
  replacedBy: { type: string; filename: string }[];
}

export type ScriptFolder = 'boothooks' | 'per-once' | 'per-boot' | 'per-instance' | 'scripts';

/** A script as it runs; in the order in which a first boot runs them. */
export interface ExplainedScript {
  /** On the machine's disk. */
  filename: string;
  folder: ScriptFolder;
  /** The part it comes from. */
  from: string;
  origin: string | null;
  size: number;
}

/** A file that a later part of the same (cleaned) name writes over. A boothook has run by then. */
export interface Overwrite {
  folder: ScriptFolder;
  filename: string;
  /** The part that is lost, and the one that stays. */
  lost: string;
  kept: string;
}

export interface MergedConfig {
  /** As YAML. */
  yaml: string;
  /** The top-level keys, each with the parts its value comes from (origins where they are known, else file names). */
  keys: { key: string; origins: string[] }[];
}

/** What a first boot of cloud-init makes of a document. */
export interface Explanation {
  /** The client it speaks of. */
  client: ClientVersion;
  size: { bytes: number; novaLimit: number; fitsNova: boolean };
  isMime: boolean;
  /** Why the machine gets nothing of the document, or not the rest of it; null when all is well. */
  failure: Remark | null;
  /** In order, archives and gzip unpacked. */
  parts: ExplainedPart[];
  handlers: ExplainedHandler[];
  scripts: ExplainedScript[];
  overwrites: Overwrite[];
  /** Null when cloud-init writes none. Jinja parts that only the machine can render are not in it. */
  config: MergedConfig | null;
  /** File names of parts that nobody takes. */
  unhandled: string[];
  /** URLs that the machine will fetch; what they hold is not looked at. */
  includes: { from: string; url: string; once: boolean }[];
  /** In the order in which cloud-init comes upon it. */
  warnings: Remark[];
  /** Where the clients differ on this very document. */
  versions: string[];
}

export interface ExplainOptions {
  /** File name on the wire → `bundle@revision/part`. */
  origins?: ReadonlyMap<string, string>;
  /** Default: 25.1. */
  client?: ClientVersion;
  /** The machine's launch index, where its datasource tells one (EC2's, or `launch-index` in NoCloud's meta-data). */
  launchIndex?: number | null;
}
