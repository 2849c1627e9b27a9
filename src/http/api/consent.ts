import type { FastifyRequest } from 'fastify';
import { checkInScope } from '../../domain/actor.ts';
import { malformed } from '../../domain/errors.ts';
import { checkName } from '../../domain/names.ts';
import type { WriteOptions } from '../../service/bundles.ts';
import { preconditionsOf } from './conditions.ts';

/** What the query of a publication may say: of a change of what machines share. */
export interface PublicationQuery {
  dryRun?: boolean;
  message?: string;
  /** Lists of names, with commas between. */
  accept?: string[];
  force?: boolean;
}

/** Who says which machines may break. @throws malformed `bad_name`; forbidden `out_of_scope` */
export function consentOf({ actor }: FastifyRequest, { accept: lists = [], force = false }: PublicationQuery) {
  const names = lists.flatMap((list) => list.split(',')).map((name) => name.trim());
  const accept = names.filter((name) => name !== '').map((name) => checkName('instance', name));
  for (const name of accept) checkInScope(actor, 'instance', name);
  return { by: actor, accept, force };
}

/** @throws as consentOf; malformed `bad_message` */
export function writeOptions(request: FastifyRequest, query: PublicationQuery): WriteOptions {
  const { dryRun = false, message = '' } = query;
  if (/\p{Cc}/u.test(message)) throw malformed('bad_message', 'the message is one line, without control characters');
  return {
    preconditions: preconditionsOf(request),
    dryRun,
    message: message === '' ? null : message,
    ...consentOf(request, query),
  };
}
