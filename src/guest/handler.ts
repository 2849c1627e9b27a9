import { readFileSync } from 'node:fs';

/**
 * The part handler of the built-in bundle `kube` as machines receive it: kube-part-handler.py with the applier and its units
 * written into it. The same bytes at each call; ASCII in short lines, so it goes on the wire as it is.
 * @throws Error when a file beside this one is missing, or can no longer be written into a Python literal
 */
export function kubePartHandler(): string {
  return read('kube-part-handler.py').replace(/'''\{([a-z.-]+)\}'''/g, (_, name: string) => `'''${literal(name)}'''`);
}

/** The content of a raw string literal in three single quotes. */
function literal(name: string): string {
  const text = read(name);
  if (text.includes("'''") || text.endsWith('\\')) throw new Error(`${name} cannot be written into a Python literal`);
  return text;
}

function read(name: string): string {
  const text = readFileSync(new URL(name, import.meta.url), 'utf8');
  if (!/^[\t\n\x20-\x7e]*$/.test(text)) throw new Error(`${name} holds more than ASCII`);
  return text;
}
