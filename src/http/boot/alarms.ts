import type { FastifyBaseLogger } from 'fastify';
import type { Alarm, AlarmKind } from '../../domain/alarm.ts';

const SENTENCES: Record<AlarmKind, string> = {
  late_fetch: 'alarm: a document was asked for after its window closed',
  foreign_address: 'alarm: a document was asked for from an address that is not allowed',
  old_stub: 'alarm: a stub that was rotated, or whose instance was deleted, was used',
  second_machine: 'alarm: a second machine fetched the document of an instance',
};

/** One line for an alarm that begins: the instance by its name, and who asked; never the URL that was asked for. */
export function logAlarm(log: FastifyBaseLogger, { instance, kind, address, userAgent }: Alarm): void {
  log.warn({ instance, kind, address, userAgent }, SENTENCES[kind]);
}
