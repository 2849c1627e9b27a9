import type { FastifyInstance, FastifyPluginAsync } from 'fastify';
import { unauthenticated } from '../../domain/errors.ts';
import type { BundleService } from '../../service/bundles.ts';
import type { DeliveryService } from '../../service/deliveries.ts';
import type { InstanceService } from '../../service/instances.ts';
import type { Actor, Authenticate } from '../../service/keys.ts';
import type { LedgerService } from '../../service/ledger.ts';
import type { LookupService } from '../../service/lookup.ts';
import type { ReplayService } from '../../service/replay.ts';
import type { ReportService } from '../../service/reports.ts';
import type { SecretService } from '../../service/secrets.ts';
import type { TimelineService } from '../../service/timeline.ts';
import type { WaitService } from '../../service/wait.ts';
import type { WindowService } from '../../service/windows.ts';
import { tokenOf } from '../auth.ts';
import { sendProblem } from '../errors.ts';
import { Finding, Problem } from '../schemas.ts';
import { bundleRoutes, bundleSchemas } from './bundles.ts';
import { deliveryRoutes, deliverySchemas } from './deliveries.ts';
import { explanationSchemas, instanceDocumentRoutes } from './instance-documents.ts';
import { instanceSchemas } from './instance-views.ts';
import { instanceRoutes } from './instances.ts';
import { ledgerRoutes } from './ledger.ts';
import { type Lint, lintRoutes, lintSchemas } from './lint.ts';
import { logRoutes, logSchemas } from './logs.ts';
import { lookupRoutes } from './lookup.ts';
import { partRoutes, partSchemas } from './parts.ts';
import { replayRoutes, replaySchemas } from './replay.ts';
import { revisionRoutes, revisionSchemas } from './revisions.ts';
import { secretRoutes, secretSchemas } from './secrets.ts';
import { timelineRoutes, timelineSchemas } from './timeline.ts';
import { varRoutes } from './vars.ts';
import { waitRoutes } from './wait.ts';
import { windowRoutes, windowSchemas } from './windows.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; set by the api scope's auth before anything else happens. */
    actor: Actor;
  }
}

export interface ApiServices {
  authenticate: Authenticate;
  bundles: BundleService;
  instances: InstanceService;
  deliveries: DeliveryService;
  timeline: TimelineService;
  reports: ReportService;
  waiting: WaitService;
  lookup: LookupService;
  ledger: LedgerService;
  secrets: SecretService;
  windows: WindowService;
  lint: Lint;
  replay: ReplayService;
}

/**
 * The schemas that others refer to by name. They belong to the root: a scope that adds schemas of its own gets Fastify's default validator
 * and serializer back, which coerce bodies and drop fields.
 */
export const apiSchemas = [
  Finding,
  Problem,
  ...bundleSchemas,
  ...partSchemas,
  ...revisionSchemas,
  ...secretSchemas,
  ...instanceSchemas,
  ...explanationSchemas,
  ...lintSchemas,
  ...deliverySchemas,
  ...timelineSchemas,
  ...logSchemas,
  ...windowSchemas,
  ...replaySchemas,
];

/** The operators' scope: every call needs a token, every body arrives as bytes, every error is problem+json. */
export const apiScope: FastifyPluginAsync<ApiServices> = async (app: FastifyInstance, services) => {
  app.decorateRequest('actor', null as unknown as Actor);
  app.decorateRequest('formSecrets', null);
  app.addHook('onRequest', async (request, reply) => {
    const token = tokenOf(request.headers.authorization);
    const actor = token === null ? null : services.authenticate(token);
    if (!actor) {
      if (request.headers.expect !== undefined) reply.header('connection', 'close');
      throw unauthenticated(
        token === null ? 'no_token' : 'bad_token',
        token === null
          ? 'send the API token: -K data/admin.curlrc, or an Authorization: Bearer header'
          : 'this token is not known here',
      );
    }
    request.actor = actor;
    reply.header('cache-control', 'no-store');
  });
  // One parser for everything: what a body is, is said by the route (and CURL habits), not by a Content-Type that curl made up.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.setErrorHandler(sendProblem);

  const { bundles, instances, secrets, lint } = services;
  await app.register(bundleRoutes, { bundles });
  await app.register(partRoutes, { bundles });
  await app.register(revisionRoutes, { bundles });
  await app.register(instanceRoutes, { instances });
  await app.register(instanceDocumentRoutes, { instances });
  await app.register(secretRoutes, { secrets });
  await app.register(varRoutes, { bundles, instances });
  await app.register(lintRoutes, { lint });
  await app.register(deliveryRoutes, { deliveries: services.deliveries });
  await app.register(timelineRoutes, { timeline: services.timeline });
  await app.register(logRoutes, { reports: services.reports });
  await app.register(windowRoutes, { windows: services.windows, instances });
  await app.register(replayRoutes, { replay: services.replay, instances });
  await app.register(waitRoutes, { waiting: services.waiting, timeline: services.timeline });
  await app.register(ledgerRoutes, { ledger: services.ledger });
  await app.register(lookupRoutes, { lookup: services.lookup });
};
