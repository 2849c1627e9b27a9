import { scheduler } from 'node:timers/promises';
import { type Part, sha256 } from '../domain/bundle.ts';
import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { PartUpload } from '../domain/upload.ts';
import { checkMerge, mergeFindings } from '../inspect/merge.ts';
import { parseMime } from '../inspect/mime.ts';
import { inspectBraces, inspectPart, isJudgedBySchema } from '../inspect/part.ts';
import type { Schemas } from '../inspect/schema.ts';
import { isMimeArchive, sniff, sniffTemplate } from '../inspect/sniff.ts';
import { parseTemplate } from '../render/template.ts';
import type { Pause } from './slices.ts';

/** A part as it would be kept, and what there is to say about it. */
export interface JudgedPart {
  part: Part;
  findings: Finding[];
  /** Which schema judges it (of a template: what it renders to), or null. */
  schema: string | null;
}

/**
 * Judges an upload: what it is, and whether a machine could use it. Of a template only the source is judged here; what it renders to is looked at
 * for each machine. `before`: the part in whose place it goes; what is not said stays as it was. `pause` is awaited before and within it.
 * @throws BootbundleError of whatever kind, naming the part, when it cannot even be told what it is
 */
export async function judgePart(
  sent: PartUpload,
  before: Part | undefined,
  schemas: Schemas,
  pause: Pause,
): Promise<JudgedPart> {
  await pause();
  const { filename, body } = sent;
  const { part, findings } = namingPart(filename, () => identify(sent, before));
  const schema = isJudgedBySchema(part.type) ? (schemas?.source ?? null) : null;
  if (part.template) {
    findings.push(...templateFindings(filename, body));
    return { part, findings, schema };
  }
  findings.push(...inspectBraces(filename, body), ...(await inspectPart(filename, part.type, body, schemas, pause)));
  return { part, findings, schema };
}

function identify(sent: PartUpload, before: Part | undefined): { part: Part; findings: Finding[] } {
  const { filename, body } = sent;
  const template = sent.template ?? before?.template ?? false;
  const saidBefore = before?.typeSaid ? before.type : null;
  const said = sent.type === undefined ? saidBefore : sent.type;
  const { type, typeSaid, findings } = template ? sniffTemplate(filename, body, said) : sniff(filename, body, said);
  const merge = sent.merge === undefined ? (before?.merge ?? null) : sent.merge === null ? null : checkMerge(sent.merge);
  const part = { filename, type, typeSaid, merge, template, size: body.length, sha256: sha256(body) };
  return { part, findings: [...findings, ...(merge === null ? [] : mergeFindings(filename, merge))] };
}

function templateFindings(filename: string, body: Uint8Array): Finding[] {
  try {
    parseTemplate(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
    return [];
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    const found = error.findings ?? [{ severity: 'error' as const, code: error.code, message: error.message }];
    return found.map((finding) => ({ ...finding, part: filename }));
  }
}

/** Of many parts the error must say which. */
function namingPart<T>(filename: string, judge: () => T): T {
  try {
    return judge();
  } catch (error) {
    if (!(error instanceof BootbundleError) || error.message.startsWith(`${filename}: `)) throw error;
    const findings = error.findings === undefined ? {} : { findings: error.findings };
    throw new BootbundleError(error.kind, error.code, `${filename}: ${error.message}`, findings);
  }
}

/** A file under inspection: what it was taken for (null when that cannot be told), and what there is to say. */
export interface LintedPart {
  filename: string;
  type: string | null;
  findings: Finding[];
}

export interface LintReport {
  parts: LintedPart[];
  /** Which schema judged cloud-configs; null when none did. */
  schema: string | null;
}

/**
 * Inspects files without keeping them; what is refused elsewhere is a finding here. A MIME multipart's parts are inspected each by itself.
 * @param pause awaited between parts and within large ones
 */
export async function lint(
  uploads: readonly PartUpload[],
  schemas: Schemas,
  pause: Pause = () => scheduler.yield(),
): Promise<LintReport> {
  const report: LintReport = { parts: [], schema: null };
  for (const upload of uploads.flatMap(explode)) {
    const { filename } = upload;
    try {
      const { part, findings, schema } = await judgePart(upload, undefined, schemas, pause);
      report.parts.push({ filename, type: part.type, findings });
      report.schema ??= schema;
    } catch (error) {
      if (!(error instanceof BootbundleError)) throw error;
      const message = error.message.replace(`${filename}: `, '');
      report.parts.push({ filename, type: null, findings: [{ severity: 'error', code: error.code, part: filename, message }] });
    }
  }
  return report;
}

/** The parts of a MIME multipart, named `file/part`; any other file is itself. */
function explode(upload: PartUpload): PartUpload[] {
  const { filename, body } = upload;
  if (!isMimeArchive(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1'))) return [upload];
  const leaves = [...parseMime(body).walk()].filter(({ children }) => children.length === 0);
  return leaves.map((leaf, index) => {
    // cloud-init's PART_FN_TPL (handlers/__init__.py); the types it looks behind are TYPE_NEEDED (user_data.py).
    const name = leaf.filename || `part-${String(index + 1).padStart(3, '0')}`;
    const sniffed = ['text/plain', 'text/x-not-multipart', 'text/x-shellscript'].includes(leaf.contentType);
    const merge = leaf.header('Merge-Type') ?? leaf.header('X-Merge-Type');
    return {
      filename: `${filename}/${name}`,
      body: leaf.body(),
      ...(sniffed ? {} : { type: leaf.contentType }),
      ...(merge === null ? {} : { merge }),
    };
  });
}

/** How many findings of each severity there are. */
export function countFindings({ parts }: LintReport): { errors: number; warnings: number } {
  const all = parts.flatMap(({ findings }) => findings);
  const errors = all.filter(({ severity }) => severity === 'error').length;
  return { errors, warnings: all.length - errors };
}

/** A report as compilers write it: FILE:LINE:COLUMN: severity: message [code], and a last line that sums up. */
export function formatLint(report: LintReport): string {
  const lines = report.parts.flatMap(({ filename, findings }) =>
    findings.map(({ severity, code, line, column, message }) => {
      const place = [filename, line, column].filter((word) => word !== undefined).join(':');
      return `${place}: ${severity}: ${message} [${code}]`;
    }),
  );
  const { errors, warnings } = countFindings(report);
  const count = (number: number, word: string) => `${number} ${word}${number === 1 ? '' : 's'}`;
  const judge = report.schema === null ? '' : `; judged by the schema of ${report.schema}`;
  const files = count(report.parts.length, 'file');
  return [...lines, `${files}: ${count(errors, 'error')}, ${count(warnings, 'warning')}${judge}`, ''].join('\n');
}
