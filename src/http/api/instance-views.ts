import { Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import { type Actor, roleSuffices } from '../../domain/actor.ts';
import type { CurrentState } from '../../domain/boot.ts';
import { formatDuration } from '../../domain/duration.ts';
import { cloudInitInstanceId, type Instance, instanceEtag } from '../../domain/instance.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { DeliveryWindow, Policy } from '../../domain/policy.ts';
import { type InstanceReport, type InstanceWriteReport, specOf } from '../../service/instances.ts';
import { Findings, FreeObject, Name, Nullable, Sha256, Time } from '../schemas.ts';
import { sendEtag } from './conditions.ts';
import { viewSecret } from './secrets.ts';
import { isoTime } from './text.ts';

/** How instances are shown. */

const PolicyView = Type.Object(
  {
    closeAfter: Type.String({ description: 'From the first delivery: `1h`, `success` or `never`' }),
    expiresAt: Nullable(Time),
    allowFrom: Type.Array(Type.String(), { description: 'Networks; none: from everywhere' }),
    afterClose: Type.Union([Type.Literal('refuse'), Type.Array(Type.String())]),
    why: Type.String({ description: 'Until when, and why: one sentence' }),
  },
  { $id: 'Policy', description: 'Who may fetch, and until when: what is stated, and the defaults' },
);

const WindowView = Type.Union(
  [
    Type.Object({ open: Type.Literal(true), closesAt: Nullable(Time) }),
    Type.Object({
      open: Type.Literal(false),
      since: Time,
      because: Type.Union(
        (['closed', 'expired', 'delivered', 'succeeded'] as const).map((why) => Type.Literal(why)),
        {
          description:
            'closed: by hand; expired; delivered: so long after the first delivery; succeeded: the machine reported success',
        },
      ),
    }),
  ],
  { $id: 'Window', description: 'Whether the document is given out now; closesAt: as far as is known' },
);

export const StateView = Type.Object(
  {
    state: Type.Union([
      Type.Literal('registered'),
      Type.Literal('delivered'),
      Type.Literal('booting'),
      Type.Literal('ready'),
      Type.Literal('failed'),
      Type.Literal('silent'),
    ]),
    reason: Type.String({ description: 'One sentence' }),
    since: Type.Optional(Type.String({ format: 'date-time', description: 'Where it is known' })),
  },
  { description: 'How far its boot is; derived from what it fetched and reported' },
);

const InstanceView = Type.Object(
  {
    name: Name('instance'),
    bundles: Type.Array(Type.String()),
    vars: FreeObject('Values for templates and handlers'),
    labels: Type.Record(Type.String(), Type.String()),
    metaData: FreeObject('Added to the NoCloud meta-data'),
    vendorData: Nullable(Type.String()),
    networkConfig: Type.Unknown({ description: 'Text, object or null' }),
    policy: FreeObject('Who may fetch, where it differs from the defaults'),
    track: Type.Boolean(),
    changed: Type.Optional(Type.Boolean({ description: 'On a write. false: it was so already' })),
    status: Type.Object({
      id: Type.String(),
      instanceId: Type.String({ description: 'What cloud-init knows the machine by' }),
      version: Type.Integer(),
      createdAt: Time,
      updatedAt: Time,
      state: StateView,
      stub: Nullable(
        Type.Object(
          {
            url: Type.String({ description: 'A secret of the machine’s' }),
            text: Type.String({ description: 'What goes into Nova' }),
            size: Type.Integer({ description: 'Bytes' }),
          },
          { description: 'Null for a viewer, and for a dry run that would create it' },
        ),
      ),
      document: Nullable(
        Type.Object(
          {
            size: Type.Integer({ description: 'Bytes before compression' }),
            digest: Type.Union([Sha256, Type.Null()], { description: 'Null for a viewer when secrets are in it' }),
            parts: Type.Array(Type.Object({ filename: Type.String(), type: Type.String(), origin: Type.String() })),
            revisions: Type.Array(Type.String(), { examples: [['atomic@1', 'db@3']] }),
            fitsNova: Type.Boolean({
              description: 'Whether the document itself would have fit into Nova’s user-data (49,149 bytes)',
            }),
          },
          { description: 'What it would get now; null when that cannot be rendered: findings say why' },
        ),
      ),
      policy: Type.Ref('Policy#'),
      window: Type.Ref('Window#'),
      secrets: Type.Array(Type.Ref('Secret#'), { description: 'Its own, by name' }),
      deliveries: Type.Object({ count: Type.Integer(), firstAt: Nullable(Time), lastAt: Nullable(Time) }),
      schema: Nullable(Type.String({ description: 'The cloud-init schema that judged what its templates render to' })),
      findings: Findings,
    }),
  },
  {
    $id: 'Instance',
    examples: [
      {
        name: 'my-atomic-server',
        bundles: ['atomic', 'db'],
        vars: {},
        labels: {},
        metaData: {},
        vendorData: null,
        networkConfig: null,
        policy: {},
        track: true,
        status: {
          id: '5f1d6c1be0a9a3f4',
          instanceId: 'i-5f1d6c1be0a9a3f4',
          version: 1,
          createdAt: '2026-11-22T12:00:00.000Z',
          updatedAt: '2026-11-22T12:00:00.000Z',
          state: { state: 'registered', reason: 'it has not fetched its document yet', since: '2026-11-22T12:00:00.000Z' },
          stub: {
            url: 'http://192.0.2.10:8080/i/X1ELG-Cpo_QAAAAA0zO4kFq0XyVvPq9b2fQpVnkT/user-data',
            text: '#include-once\nhttp://192.0.2.10:8080/i/X1ELG-Cpo_QAAAAA0zO4kFq0XyVvPq9b2fQpVnkT/user-data\n',
            size: 97,
          },
          document: {
            size: 1734,
            digest: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
            parts: [{ filename: '01-disable-selinux.sh', type: 'text/x-shellscript', origin: 'atomic@1/disable-selinux.sh' }],
            revisions: ['atomic@1', 'db@3'],
            fitsNova: true,
          },
          policy: {
            closeAfter: 'never',
            expiresAt: null,
            allowFrom: [],
            afterClose: 'refuse',
            why: 'stays open, because no secrets are in the document and a refused fetch costs a rebuilt machine its users and keys',
          },
          window: { open: true, closesAt: null },
          secrets: [],
          deliveries: { count: 0, firstAt: null, lastAt: null },
          schema: null,
          findings: [],
        },
      },
    ],
  },
);

const InstanceItem = Type.Object(
  {
    name: Name('instance'),
    bundles: Type.Array(Type.String()),
    labels: Type.Record(Type.String(), Type.String()),
    status: Type.Object({
      id: Type.String(),
      instanceId: Type.String(),
      version: Type.Integer(),
      createdAt: Time,
      updatedAt: Time,
      retiredAt: Nullable(Time),
      state: StateView,
      deliveries: Type.Object({ count: Type.Integer(), firstAt: Nullable(Time), lastAt: Nullable(Time) }),
    }),
  },
  { $id: 'InstanceItem' },
);

/** What the routes' answers refer to by name. */
export const instanceSchemas = [PolicyView, WindowView, InstanceView, InstanceItem];

export function nullableTime(at: number | null): string | null {
  return at === null ? null : isoTime(at);
}

function viewStatus(instance: Instance) {
  return {
    id: instance.id,
    instanceId: cloudInitInstanceId(instance),
    version: instance.version,
    createdAt: isoTime(instance.createdAt),
    updatedAt: isoTime(instance.updatedAt),
    deliveries: {
      count: instance.deliveryCount,
      firstAt: nullableTime(instance.firstDeliveryAt),
      lastAt: nullableTime(instance.lastDeliveryAt),
    },
  };
}

export function viewState({ state, reason, since }: CurrentState) {
  return { state, reason, ...(since === null ? {} : { since: isoTime(since) }) };
}

export function viewItem(instance: Instance, state: CurrentState) {
  const { name, bundles, labels } = instance;
  const status = { ...viewStatus(instance), retiredAt: nullableTime(instance.retiredAt), state: viewState(state) };
  return { name, bundles, labels, status };
}

export function viewPolicy({ closeAfter, expiresAt, ...policy }: Policy) {
  const closing = closeAfter === null ? 'never' : closeAfter === 'success' ? closeAfter : formatDuration(closeAfter);
  return { closeAfter: closing, expiresAt: nullableTime(expiresAt), ...policy };
}

export function viewWindow(window: DeliveryWindow) {
  return window.open
    ? { open: true, closesAt: nullableTime(window.closesAt) }
    : { open: false, since: isoTime(window.since), because: window.because };
}

/** To a viewer nothing is told by which a machine's capabilities or secrets could be had: the digest of a document that holds some could be guessed at. */
export function viewReport(
  { instance, state, stub, document, policy, window, secrets, schema, findings }: InstanceReport,
  { role }: Pick<Actor, 'role'>,
) {
  const masked = !roleSuffices(role, 'editor');
  return {
    name: instance.name,
    ...specOf(instance),
    status: {
      ...viewStatus(instance),
      state: viewState(state),
      stub: masked ? null : stub && { ...stub, size: Buffer.byteLength(stub.text) },
      document: document && viewDocument(document, masked),
      policy: viewPolicy(policy),
      window: viewWindow(window),
      secrets: secrets.map(viewSecret),
      schema,
      findings,
    },
  };
}

function viewDocument({ holdsSecrets, digest, ...document }: NonNullable<InstanceReport['document']>, masked: boolean) {
  const fitsNova = document.size <= LIMITS.novaUserDataBytes;
  return { ...document, digest: masked && holdsSecrets ? null : digest, fitsNova };
}

export function sendWritten(
  reply: FastifyReply,
  report: InstanceWriteReport,
  { dryRun = false }: { dryRun?: boolean },
): FastifyReply {
  const { name } = report.instance;
  sendEtag(reply, instanceEtag(report.instance));
  if (report.created && !dryRun) reply.code(201).header('location', `/api/v1/instances/${name}`);
  return reply.send({ ...viewReport(report, reply.request.actor), changed: report.changed });
}
