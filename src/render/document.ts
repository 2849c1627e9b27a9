import type { Expectations } from '../domain/boot.ts';
import { sha256 } from '../domain/bundle.ts';
import type { Finding } from '../domain/finding.ts';
import type { JsonObject } from '../domain/json.ts';
import { type EncodedBody, type Entity, encodeBody, formatMultipart } from './mime.ts';
import { REPORTER, reporter, TRACK_RULE, trackingConfig } from './track.ts';

/** What cloud-init will do with a part, as far as the order of the document depends on it. */
export type PartRole =
  /** A part handler; `handles` are the types it takes, null when its source does not say. */
  | { kind: 'handler'; handles: readonly string[] | null }
  /** Takes part in the merge of cloud-configs. `statesRule`: by itself, so that its place in the order matters. */
  | { kind: 'config'; statesRule: boolean }
  /** An `#include`; the URLs it names. */
  | { kind: 'include'; urls: readonly string[] }
  | { kind: 'other' };

/** A part ready to be sent: compiled once from an immutable revision, used for every instance that refers to it. */
export interface CompiledPart {
  filename: string;
  type: string;
  merge: string | null;
  role: PartRole;
  body: EncodedBody;
  /** `bundle@revision/file`, for findings. */
  origin: string;
}

/** The machine a document is rendered for. */
export interface Target {
  name: string;
  id: string;
  vars: JsonObject;
  /** Where the machine reports to; the URL is a secret of its own. */
  reportUrl: string;
  /** Whether it is to report how its boot goes. */
  track: boolean;
}

export interface RenderedDocument {
  bytes: Buffer;
  /** What was sent, in the order in which it was sent; `filename` is the name on the wire. */
  parts: { filename: string; type: string; origin: string }[];
  findings: Finding[];
  /** What it makes the machine say, if all goes well. */
  expects: Expectations;
}

/**
 * Which rendering this is: raised by every change of the code after which the same revisions and instance come to other bytes. A delivery's row
 * keeps it, so that a replay can tell why it differs.
 */
export const RENDERER_VERSION = 2;

/** Tells handlers about the machine; sent right after the handlers when one of them lists this type. */
export const CONFIG_TYPE = 'text/x-bootbundle-config';

/**
 * cloud-init merges cloud-configs so that the first of two single values wins, and has no rule for "lists join, the later value
 * wins". Sending them in reverse, each after the first with this rule, gives exactly that (mergers/m_list.py, m_dict.py). It names no
 * `str()`: with one, a text given for what an earlier config has as a list or map would lose to it (m_str.py).
 */
export const REVERSE_RULE = 'list(prepend)+dict(no_replace,recurse_list)';
/** What goes with parts in their given order, once one of them states a rule of its own. */
export const GIVEN_RULE = 'list(append)+dict(no_replace,recurse_list)';

/** Encodes a part for the wire. */
export function compilePart(part: Omit<CompiledPart, 'body'>, body: Uint8Array): CompiledPart {
  return { ...part, body: encodeBody(body) };
}

/**
 * Renders the document of one instance from its bundles' parts, in the order of the bundles. Pure: same input, same bytes.
 * `takenTypes` are the types cloud-init itself takes; `includeRoots` are URL prefixes of our own that no `#include` may name.
 */
export function renderDocument(
  parts: readonly CompiledPart[],
  target: Target,
  rules: { takenTypes: ReadonlySet<string>; includeRoots: readonly string[] },
): RenderedDocument {
  const handlers = parts.filter((part) => part.role.kind === 'handler');
  const handled = handlers.flatMap((part) => (part.role.kind === 'handler' ? (part.role.handles ?? []) : []));
  const others = parts.filter((part) => part.role.kind !== 'handler');
  const sequence = [...handlers, ...(handled.includes(CONFIG_TYPE) ? [configPart(target)] : []), ...orderConfigs(others)];
  const { track, reportUrl } = target;
  const config = () => ownPart('bootbundle-track.yaml', 'text/cloud-config', trackingConfig(reportUrl), TRACK_RULE);
  const sent = number(track ? [...sequence, config()] : sequence);
  // Its name is its own, and it comes last, so that tracking changes no other part's number.
  if (track) sent.push(ownPart(REPORTER, 'text/x-shellscript', reporter(reportUrl)));
  return {
    bytes: formatMultipart(sent.map(({ filename, type, merge, body }): Entity => ({ filename, type, merge, body }))),
    parts: sent.map(({ filename, type, origin }) => ({ filename, type, origin })),
    findings: [...findUnhandled(sequence, handlers, rules.takenTypes), ...findSelfIncludes(sequence, rules.includeRoots)],
    expects: { events: track, phoneHome: track, manifests: reportedParts(sent, handlers) },
  };
}

/** Gives each part its name on the wire. */
function number(sequence: readonly CompiledPart[]): CompiledPart[] {
  const width = Math.max(2, String(sequence.length).length);
  return sequence.map((part, index) => ({ ...part, filename: `${String(index + 1).padStart(width, '0')}-${part.filename}` }));
}

/** The parts whose results are reported: those that go to a handler which is told where to (cloud-init keeps the later of two for a type). */
function reportedParts(sent: readonly CompiledPart[], handlers: readonly CompiledPart[]): string[] {
  const reports = new Map<string, boolean>();
  for (const { role } of handlers) {
    const types = role.kind === 'handler' ? (role.handles ?? []) : [];
    for (const type of types) reports.set(type, types.includes(CONFIG_TYPE));
  }
  return sent.filter(({ type }) => type !== CONFIG_TYPE && reports.get(type)).map(({ filename }) => spoolName(filename));
}

/** The name a part's result comes under: what is longer than 100 characters is cut (guest/kube-part-handler.py, spool_name). */
function spoolName(filename: string): string {
  return filename.length > 100 ? `${filename.slice(0, 91)}-${sha256(filename).slice(0, 8)}` : filename;
}

function configPart(target: Target): CompiledPart {
  const { name, id, vars, reportUrl } = target;
  const text = `${JSON.stringify({ instance: { name, id }, kube: vars.kube ?? {}, report: reportUrl })}\n`;
  return ownPart('bootbundle-config.json', CONFIG_TYPE, text);
}

function ownPart(filename: string, type: string, text: string, merge: string | null = null): CompiledPart {
  return compilePart({ filename, type, merge, role: { kind: 'other' }, origin: 'bootbundle' }, Buffer.from(text));
}

/** Whether the cloud-configs must stay in their given order, because one of them states how (or when) it is merged. */
export function keepsGivenOrder(parts: readonly CompiledPart[]): boolean {
  return parts.some((part) => part.role.kind === 'config' && (part.role.statesRule || part.merge !== null));
}

/** Gives each cloud-config its place and its merge rule; every other part stays where it is. */
function orderConfigs(parts: readonly CompiledPart[]): CompiledPart[] {
  const given = keepsGivenOrder(parts);
  const configs = parts.filter((part) => part.role.kind === 'config');
  if (!given) configs.reverse();
  let next = 0;
  return parts.map((part) => {
    if (part.role.kind !== 'config') return part;
    const config = configs[next++] as CompiledPart;
    if (next === 1 || config.merge !== null || (config.role.kind === 'config' && config.role.statesRule)) return config;
    return { ...config, merge: given ? GIVEN_RULE : REVERSE_RULE };
  });
}

function findUnhandled(
  sequence: readonly CompiledPart[],
  handlers: readonly CompiledPart[],
  takenTypes: ReadonlySet<string>,
): Finding[] {
  const findings: Finding[] = [];
  const takenBy = new Map<string, string>();
  let unreadable = false;
  for (const { role, origin } of handlers) {
    if (role.kind !== 'handler') continue;
    if (role.handles === null) {
      unreadable = true;
      findings.push({
        severity: 'warning',
        code: 'handler_types_unknown',
        part: origin,
        message: 'which types this part handler takes cannot be read from its source: return a literal list from list_types',
      });
    }
    for (const type of role.handles ?? []) {
      const earlier = takenBy.get(type);
      if (earlier !== undefined && earlier !== origin)
        findings.push({
          severity: 'warning',
          code: 'handler_replaced',
          part: origin,
          message: `takes ${type} over from ${earlier}: cloud-init keeps only the later of two handlers for a type`,
        });
      takenBy.set(type, origin);
    }
  }
  for (const { type, origin } of sequence) {
    if (takenTypes.has(type) || takenBy.has(type)) continue;
    const findIt = unreadable
      ? 'unless the part handler takes it after all'
      : type.startsWith('text/x-kube-')
        ? 'add the bundle kube, whose part handler does'
        : `add a part handler whose list_types names ${type}`;
    findings.push({
      severity: unreadable ? 'warning' : 'error',
      code: 'unhandled_part',
      part: origin,
      message: `neither cloud-init nor a part handler of this document takes ${type}: ${findIt}`,
    });
  }
  return findings;
}

function findSelfIncludes(sequence: readonly CompiledPart[], roots: readonly string[]): Finding[] {
  return sequence
    .filter(
      ({ role }) => role.kind === 'include' && role.urls.some((url) => roots.some((root) => normalUrl(url).startsWith(root))),
    )
    .map(({ origin }) => ({
      severity: 'error',
      code: 'self_include',
      part: origin,
      message: 'includes a URL of this service: a document that includes itself never ends; refer to the bundle instead',
    }));
}

/** One spelling: host in lower case, no user, no default port, no dot segments. */
function normalUrl(text: string): string {
  if (!URL.canParse(text)) return text;
  const { origin, pathname } = new URL(text);
  return origin + pathname;
}
