import type { FastifyInstance, FastifyPluginAsync } from 'fastify';
import type { BundleService } from '../../service/bundles.ts';
import type { DeliveryService } from '../../service/deliveries.ts';
import type { InstanceService } from '../../service/instances.ts';
import type { LedgerService } from '../../service/ledger.ts';
import type { LookupService } from '../../service/lookup.ts';
import type { ReplayService } from '../../service/replay.ts';
import type { ReportService } from '../../service/reports.ts';
import type { SecretService } from '../../service/secrets.ts';
import type { TimelineService } from '../../service/timeline.ts';
import type { Authenticate, TokenService } from '../../service/tokens.ts';
import type { WaitService } from '../../service/wait.ts';
import type { WindowService } from '../../service/windows.ts';
import { guard } from '../auth.ts';
import { sendProblem } from '../errors.ts';
import { Finding, Problem } from '../schemas.ts';
import { type Audit, auditRoutes, auditSchemas } from './audit.ts';
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
import { tokenRoutes, tokenSchemas } from './tokens.ts';
import { varRoutes } from './vars.ts';
import { waitRoutes } from './wait.ts';
import { windowRoutes, windowSchemas } from './windows.ts';

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
  tokens: TokenService;
  audit: Audit;
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
  ...tokenSchemas,
  ...auditSchemas,
];

/** The operators' scope: every call needs a token and a role, every body arrives as bytes, every error is problem+json. */
export const apiScope: FastifyPluginAsync<ApiServices> = async (app: FastifyInstance, services) => {
  app.decorateRequest('formSecrets', null);
  guard(app, services.authenticate);
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
  await app.register(tokenRoutes, { tokens: services.tokens });
  await app.register(auditRoutes, { audit: services.audit });
};
