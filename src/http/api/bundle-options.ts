import { dump } from 'js-yaml';
import { type Static, type TSchema, Type } from 'typebox';
import { Errors } from 'typebox/value';
import type { PartOrder, RevisionContent } from '../../domain/bundle.ts';
import { invalid, malformed } from '../../domain/errors.ts';
import type { JsonObject } from '../../domain/json.ts';
import { BUNDLE_OPTIONS_FILE } from '../../domain/names.ts';
import { parseYaml, quoted } from '../document.ts';

const Order = Type.Union([Type.Literal('name'), Type.Literal('given')], {
  description: '`name`: parts go by file name, bytewise. `given`: in the order in which they are listed.',
});
const Vars = Type.Record(Type.String(), Type.Unknown(), { description: 'Defaults for templates.' });
const options = {
  type: Type.Optional(Type.Union([Type.String(), Type.Null()], { description: 'Content type. `auto` or null: sniffed.' })),
  merge: Type.Optional(
    Type.Union([Type.String(), Type.Null()], { description: 'Merge rule of a cloud-config. Empty or null: none.' }),
  ),
  template: Type.Optional(Type.Boolean({ description: 'Rendered as a template for each instance.' })),
};
const answered = () => Type.Optional(Type.Unknown({ description: 'As a GET answers it; ignored.' }));

const PartDocument = Type.Object(
  {
    filename: Type.String(),
    content: Type.Optional(Type.String({ description: 'The file as text (UTF-8).' })),
    contentBase64: Type.Optional(Type.String({ description: 'The file as base64, for what is not text.' })),
    ...options,
    typeSaid: Type.Optional(Type.Boolean({ description: 'As a GET answers it: false means that `type` was only sniffed.' })),
    size: answered(),
    sha256: answered(),
  },
  { additionalProperties: false },
);

/** A whole bundle, or several parts, as a JSON or YAML body states it; what a GET answers beside that is ignored. */
export const BundleDocument = Type.Object(
  {
    order: Type.Optional(Order),
    vars: Type.Optional(Vars),
    parts: Type.Array(PartDocument),
    name: answered(),
    bundle: answered(),
    revision: answered(),
    digest: answered(),
    tags: answered(),
    status: answered(),
    changed: answered(),
    createdAt: answered(),
    updatedAt: answered(),
    retiredAt: answered(),
    author: answered(),
    message: answered(),
    purgedAt: answered(),
    findings: answered(),
    schema: answered(),
  },
  {
    additionalProperties: false,
    examples: [
      { parts: [{ filename: 'motd.sh', content: '#!/bin/sh\ndate > /etc/motd\n', type: 'text/x-shellscript-per-boot' }] },
    ],
  },
);
export type BundleDocument = Static<typeof BundleDocument>;

const OptionsByName = Type.Object(
  {
    order: Type.Optional(Order),
    vars: Type.Optional(Vars),
    parts: Type.Optional(Type.Record(Type.String(), Type.Object(options, { additionalProperties: false }))),
  },
  { additionalProperties: false },
);
const OptionsInOrder = Type.Object(
  {
    order: Type.Optional(Order),
    vars: Type.Optional(Vars),
    parts: Type.Array(Type.Object({ filename: Type.String(), ...options }, { additionalProperties: false })),
  },
  { additionalProperties: false },
);

/** A part's options: undefined was not said, null clears. */
export interface PartOptions {
  type?: string | null;
  merge?: string | null;
  template?: boolean;
}

/** What a `bundle.yaml` states. */
export interface BundleOptions {
  order?: PartOrder;
  vars?: JsonObject;
  /** In the order of the file. */
  parts: Map<string, PartOptions>;
  /** Whether `parts` was a list, so that its order means something. */
  listed: boolean;
}

/**
 * Reads a `bundle.yaml`; an empty one says nothing.
 * @throws malformed `bad_yaml`, `not_utf8`, `bad_field`, `unknown_field`; invalid `duplicate_part`, `bad_option`
 */
export function parseBundleOptions(bytes: Uint8Array): BundleOptions {
  const value = parseYaml(bytes, BUNDLE_OPTIONS_FILE) ?? {};
  const listed = Array.isArray((value as { parts?: unknown }).parts);
  const parts = new Map<string, PartOptions>();
  if (listed) {
    const document = check(OptionsInOrder, value, BUNDLE_OPTIONS_FILE);
    for (const { filename, ...said } of document.parts) {
      if (parts.has(filename)) throw invalid('duplicate_part', `${BUNDLE_OPTIONS_FILE} lists ${quoted(filename)} twice`);
      parts.set(filename, partOptions(filename, said));
    }
    return { ...stated(document), parts, listed };
  }
  const document = check(OptionsByName, value, BUNDLE_OPTIONS_FILE);
  for (const [filename, said] of Object.entries(document.parts ?? {})) parts.set(filename, partOptions(filename, said));
  return { ...stated(document), parts, listed };
}

/**
 * Writes the `bundle.yaml` for a tar of a revision; what it says, read back, gives the revision again. A type that was sniffed
 * is not said. With `order: given` the parts are a list, so that the order survives a tar that sorts.
 * @returns null when there is nothing to say
 */
export function formatBundleOptions(content: RevisionContent): string | null {
  const given = content.order === 'given';
  const said = content.parts.map(({ filename, type, typeSaid, merge, template }) => ({
    filename,
    ...(typeSaid ? { type } : {}),
    ...(merge === null ? {} : { merge }),
    ...(template ? { template } : {}),
  }));
  const named = said.filter((part) => Object.keys(part).length > 1).map(({ filename, ...rest }) => [filename, rest] as const);
  const document = {
    ...(given ? { order: content.order } : {}),
    ...(Object.keys(content.vars).length > 0 ? { vars: content.vars } : {}),
    ...(given ? { parts: said } : named.length > 0 ? { parts: Object.fromEntries(named) } : {}),
  };
  return Object.keys(document).length === 0 ? null : dump(document, { lineWidth: -1, noRefs: true });
}

/** Checks a JSON or YAML body. @throws malformed `bad_field`, `unknown_field` with the path */
export function checkBundleDocument(value: unknown): BundleDocument {
  return check(BundleDocument, value, 'the bundle');
}

/** Checks the `vars` of a form. @throws malformed `bad_field` */
export function checkVars(value: unknown): JsonObject {
  return check(Vars, value, 'vars') as JsonObject;
}

/** `order` and `vars` of a checked document, absent where they were not said. */
export function stated(document: { order?: PartOrder; vars?: Record<string, unknown> }): {
  order?: PartOrder;
  vars?: JsonObject;
} {
  return {
    ...(document.order === undefined ? {} : { order: document.order }),
    // The readers of document.ts let nothing through that JSON does not have.
    ...(document.vars === undefined ? {} : { vars: document.vars as JsonObject }),
  };
}

/** A part's options as said: `auto` and the empty string clear. @throws invalid `bad_option` for a control character */
export function partOptions(
  filename: string,
  said: { type?: string | null | undefined; merge?: string | null | undefined; template?: boolean | undefined },
): PartOptions {
  for (const option of ['type', 'merge'] as const)
    if (/\p{Cc}/u.test(said[option] ?? ''))
      throw invalid('bad_option', `the ${option} of ${quoted(filename)} has a control character or a line break in it`);
  return {
    ...(said.type === undefined ? {} : { type: said.type === 'auto' || said.type === '' ? null : said.type }),
    ...(said.merge === undefined ? {} : { merge: said.merge === '' ? null : said.merge }),
    ...(said.template === undefined ? {} : { template: said.template }),
  };
}

function check<Schema extends TSchema>(schema: Schema, value: unknown, what: string): Static<Schema> {
  const errors = Errors(schema, value);
  const [first] = errors;
  if (first === undefined) return value as Static<Schema>;
  const unknown = errors.find((error) => error.keyword === 'additionalProperties');
  if (unknown?.keyword === 'additionalProperties') {
    const names = unknown.params.additionalProperties.slice(0, 5).map(quoted).join(', ');
    throw malformed('unknown_field', `${at(what, unknown.instancePath)} has an unknown field ${names}`);
  }
  const wanted = errors.filter((error) => error.instancePath === first.instancePath).flatMap(expectation);
  throw malformed('bad_field', `${at(what, first.instancePath)} must ${[...new Set(wanted)].join(' or ')}`);
}

function at(what: string, path: string): string {
  return path === '' ? what : `${what}: ${quoted(path.slice(1))}`;
}

function expectation(error: ReturnType<typeof Errors>[number]): string[] {
  switch (error.keyword) {
    case 'anyOf':
      return [];
    case 'const':
      return [`be ${error.params.allowedValue}`];
    case 'required':
      return [`have ${error.params.requiredProperties.join(', ')}`];
    default:
      return [error.message.replace(/^must /, '')];
  }
}
