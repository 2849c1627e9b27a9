import { invalid, malformed } from './errors.ts';

/** A bundle, an instance, a tag or a token: DNS-like, so that it reads the same in URLs, tables and logs. */
export const NAME_PATTERN = '^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$';
/** A part's file name: safe in a header, in a URL and in a directory. */
export const PART_NAME_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$';

const NAME = new RegExp(NAME_PATTERN);
const PART_NAME = new RegExp(PART_NAME_PATTERN);

/** The file in a tar or a form that holds a bundle's options; so no part may bear its name. */
export const BUNDLE_OPTIONS_FILE = 'bundle.yaml';

/** Checks a name of a bundle, an instance, a tag or a token. @throws malformed `bad_name` */
export function checkName(what: 'bundle' | 'instance' | 'tag' | 'token', name: string): string {
  if (!NAME.test(name))
    throw malformed(
      'bad_name',
      `${what === 'instance' ? 'an' : 'a'} ${what} name has 1 to 63 of a-z 0-9 . - and begins and ends with a letter or digit`,
    );
  if (what === 'tag' && /^[0-9]+$/.test(name)) throw malformed('bad_name', 'a tag cannot be a number: name@3 means revision 3');
  return name;
}

/** Checks a part's file name. @throws malformed `bad_name` */
export function checkPartName(name: string): string {
  if (!PART_NAME.test(name))
    throw malformed('bad_name', 'a part file name has 1 to 100 of A-Z a-z 0-9 . _ - and begins with a letter or digit');
  if (name === BUNDLE_OPTIONS_FILE)
    throw malformed(
      'reserved_name',
      `${BUNDLE_OPTIONS_FILE} holds a bundle's options in a tar or a form; a part needs another name`,
    );
  return name;
}

/** What an instance asks for: `web` follows the newest revision, `web@stable` a tag, `web@3` is pinned. */
export interface Reference {
  bundle: string;
  tag: string | null;
  revision: number | null;
}

/** Reads `web`, `web@stable` or `web@3`. @throws invalid `bad_reference` */
export function parseReference(text: string): Reference {
  const match = /^([^@]+)(?:@([^@]+))?$/.exec(text);
  const [, bundle = '', pin] = match ?? [];
  if (!match || !NAME.test(bundle) || (pin !== undefined && !NAME.test(pin)))
    throw invalid('bad_reference', 'a bundle reference is NAME, NAME@TAG or NAME@REVISION');
  if (pin === undefined) return { bundle, tag: null, revision: null };
  if (!/^[0-9]+$/.test(pin)) return { bundle, tag: pin, revision: null };
  const revision = Number(pin);
  if (!/^[1-9][0-9]{0,8}$/.test(pin)) throw invalid('bad_reference', 'a revision is a number from 1');
  return { bundle, tag: null, revision };
}

/** The text a reference was read from. */
export function formatReference(reference: Reference): string {
  const pin = reference.tag ?? reference.revision;
  return pin === null ? reference.bundle : `${reference.bundle}@${pin}`;
}
