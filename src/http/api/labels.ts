import { Type } from '@fastify/type-provider-typebox';

/** `?label=site=fra1&label=rack`: instances that have all of them. */
export const LabelQuery = Type.Array(Type.String(), {
  minItems: 1,
  maxItems: 10,
  description: 'KEY=VALUE or KEY; several: all of them',
});

export function parseLabel(text: string): { key: string; value: string | null } {
  const equals = text.indexOf('=');
  return equals < 0 ? { key: text, value: null } : { key: text.slice(0, equals), value: text.slice(equals + 1) };
}
