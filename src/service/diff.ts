import { isUtf8 } from 'node:buffer';
import { createTwoFilesPatch } from 'diff';
import { dump } from 'js-yaml';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';

/** One of the two things that are compared: what it is called (`web@3`), its vars, and its parts by file name, in order. */
export interface Side {
  label: string;
  vars: JsonObject;
  parts: ReadonlyMap<string, { body: Uint8Array; options: JsonObject }>;
}

/** Two texts that have little in common are told apart slowly: past this the one is shown as removed, the other as added. Milliseconds. */
const PATIENCE_MS = 200;
const EMPTY = { body: new Uint8Array(), options: {} };

/**
 * What changed between two sides, as `diff -u` tells it: each part that differs by itself, its options (type, merge, template) before it
 * where they differ, then the vars. A body that is not text is only said to differ. Empty when nothing changed.
 */
export function diffParts(before: Side, after: Side): string {
  const names = [...new Set([...before.parts.keys(), ...after.parts.keys()])];
  const patches = names.map((name) => {
    const [old, next] = [before.parts.get(name), after.parts.get(name)];
    const labels = [old ? `${before.label}/${name}` : '/dev/null', next ? `${after.label}/${name}` : '/dev/null'] as const;
    const options = unified(...labels, yaml(old?.options), yaml(next?.options), '  (options)');
    return options + unified(...labels, ...texts((old ?? EMPTY).body, (next ?? EMPTY).body), '');
  });
  const vars = unified(`${before.label} vars`, `${after.label} vars`, yaml(before.vars), yaml(after.vars), '');
  return patches.join('') + vars;
}

function unified(oldLabel: string, newLabel: string, before: string, after: string, note: string): string {
  if (before === after) return '';
  const [from, to] = [oldLabel + note, newLabel + note];
  const patch = createTwoFilesPatch(from, to, before, after, undefined, undefined, {
    context: 3,
    timeout: PATIENCE_MS,
    headerOptions: { includeIndex: false, includeUnderline: false, includeFileHeaders: true },
  });
  return patch ?? `--- ${from}\n+++ ${to}\n${replaced('-', before)}${replaced('+', after)}`;
}

function replaced(sign: string, text: string): string {
  return text
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => `${sign}${line}\n`)
    .join('');
}

/** Bodies as lines; in a binary's place its size stands, so that it differs, and no terminal is spoilt. */
function texts(before: Uint8Array, after: Uint8Array): [string, string] {
  if (Buffer.compare(before, after) === 0) return ['', ''];
  return isText(before) && isText(after)
    ? [Buffer.from(before).toString('utf8'), Buffer.from(after).toString('utf8')]
    : [`binary, ${before.length} bytes\n`, `another binary, ${after.length} bytes\n`];
}

function isText(body: Uint8Array): boolean {
  return isUtf8(body) && !body.includes(0);
}

function yaml(value: JsonObject | undefined): string {
  if (value === undefined || canonicalJson(value as Json) === '{}') return '';
  return dump(value, { lineWidth: -1, sortKeys: true });
}
