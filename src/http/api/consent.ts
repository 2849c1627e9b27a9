import type { FastifyRequest } from 'fastify';
import { malformed } from '../../domain/errors.ts';
import type { Finding } from '../../domain/finding.ts';
import { checkName } from '../../domain/names.ts';
import type { WriteOptions } from '../../service/bundles.ts';
import type { Consent } from '../../service/gate.ts';
import { preconditionsOf } from './conditions.ts';

/** What the query of a publication may say: of a change of what machines share. */
export interface PublicationQuery {
  dryRun?: boolean;
  message?: string;
  /** Lists of names, with commas between. */
  accept?: string[];
  force?: boolean;
}

/** Which machines may break. @throws malformed `bad_name` */
export function consentOf({ accept = [], force = false }: PublicationQuery): Consent {
  const names = accept.flatMap((list) => list.split(',')).map((name) => name.trim());
  return { accept: names.filter((name) => name !== '').map((name) => checkName('instance', name)), force };
}

/** @throws malformed `bad_name`, `bad_message` */
export function writeOptions(request: FastifyRequest, query: PublicationQuery): WriteOptions {
  const { dryRun = false, message = '' } = query;
  if (/\p{Cc}/u.test(message)) throw malformed('bad_message', 'the message is one line, without control characters');
  return {
    actor: request.actor,
    preconditions: preconditionsOf(request),
    dryRun,
    message: message === '' ? null : message,
    ...consentOf(query),
  };
}

/** Puts into the log who published what although machines break by it. */
export function logConsent(request: FastifyRequest, findings: readonly Finding[], query: PublicationQuery): void {
  const { dryRun = false, accept = [], force = false } = query;
  const breaks = findings.filter(({ code }) => code === 'breaks_as_accepted').map(({ message }) => message);
  if (dryRun || breaks.length === 0) return;
  const { actor, method, routeOptions, params } = request;
  request.log.warn(
    { actor: actor.name, method, route: routeOptions.url, params, accept, force, breaks },
    'published although machines break by it',
  );
}
