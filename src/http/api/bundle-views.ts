import { Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import type { Part, Revision } from '../../domain/bundle.ts';
import type { BundleWritten } from '../../service/bundles.ts';
import { FileName, Findings, FreeObject, Name, Nullable, PathName, Sha256 } from '../schemas.ts';
import { sendEtag } from './conditions.ts';
import type { PublicationQuery } from './consent.ts';
import { sendColumns } from './text.ts';

/** How bundles, their parts and revisions are shown; shared by the routes of all three. */

export const BuiltIn = Type.Boolean({
  description: 'The product’s own, which an upgrade may change; false once an operator changed it',
});

export const SchemaName = Nullable(
  Type.String({
    description: 'The cloud-init schema that judged its cloud-configs; null: none did',
    examples: ['cloud-init 25.1.4 (installed)'],
  }),
);

export const PartView = Type.Object(
  {
    filename: FileName,
    type: Type.String({ description: 'Content type it is sent with', examples: ['text/x-kube-pod'] }),
    size: Type.Integer({ description: 'Bytes' }),
    sha256: Sha256,
    typeSaid: Type.Boolean({ description: 'The type was said, so it stays; false: each new body is sniffed' }),
    merge: Nullable(Type.String({ description: 'Merge-Type of a cloud-config' })),
    template: Type.Boolean(),
  },
  { $id: 'Part' },
);

export const revisionFields = {
  revision: Type.Integer({ minimum: 1 }),
  digest: Sha256,
  order: Type.Union([Type.Literal('name'), Type.Literal('given')]),
  vars: FreeObject('Defaults for templates'),
  parts: Type.Array(Type.Ref('Part#')),
};

export const BundleWrittenView = Type.Object(
  {
    name: Name('bundle'),
    ...revisionFields,
    tags: Type.Record(Type.String(), Type.Integer()),
    changed: Type.Boolean({ description: 'false: it was so already, no revision was made' }),
    findings: Findings,
    schema: SchemaName,
  },
  { $id: 'BundleWritten' },
);

export const BundleParams = Type.Object({ bundle: PathName('bundle') });

export function viewPart({ filename, type, typeSaid, size, sha256, merge, template }: Part) {
  return { filename, type, typeSaid, size, sha256, merge, template };
}

export function viewContent({ number, digest, order, vars, parts }: Revision) {
  return { revision: number, digest, order, vars, parts: parts.map(viewPart) };
}

export function sendParts(reply: FastifyReply, parts: readonly Part[]): FastifyReply {
  return sendColumns(
    reply,
    ['FILE', 'TYPE', 'SIZE', 'MERGE', 'SHA256'],
    parts.map((part) => [part.filename, part.type, part.size, part.merge, part.sha256.slice(0, 12)]),
  );
}

export function sendBundle(
  reply: FastifyReply,
  { bundle, created, changed, findings, schema }: BundleWritten,
  query: PublicationQuery,
): FastifyReply {
  sendEtag(reply, bundle.latest.digest);
  if (created && !query.dryRun) reply.code(201).header('location', `/api/v1/bundles/${bundle.name}`);
  return reply.send({ name: bundle.name, ...viewContent(bundle.latest), tags: bundle.tags, changed, findings, schema });
}
