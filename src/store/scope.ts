import { type RawBuilder, sql } from 'kysely';
import type { NamePatterns } from '../domain/actor.ts';

/** Whether the name in a column fits (domain/actor.ts, namesFit), as a condition. Names have no upper case, which SQLite's LIKE would not tell apart. */
export function nameFits(column: string, patterns: NamePatterns): RawBuilder<boolean> {
  if (patterns === null) return sql<boolean>`1 = 1`;
  if (patterns.length === 0) return sql<boolean>`1 = 0`;
  const conditions = patterns.map((pattern) => sql`${sql.ref(column)} like ${likePattern(pattern)} escape '\\'`);
  return sql<boolean>`(${sql.join(conditions, sql` or `)})`;
}

function likePattern(pattern: string): string {
  return pattern.replace(/[\\%_]/g, '\\$&').replaceAll('*', '%');
}
