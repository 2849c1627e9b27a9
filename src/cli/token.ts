import { ConfigError, readConfig } from '../config.ts';
import { HOST_ADMIN, type NamePatterns, ROLES, type Role } from '../domain/actor.ts';
import { parseDuration } from '../domain/duration.ts';
import { type Token, tokenState } from '../domain/token.ts';
import type { TokenService } from '../service/tokens.ts';
import type { Command } from './main.ts';
import { readFlags } from './serve.ts';

export const token: Command = {
  name: 'token',
  summary: 'make and list API tokens, also when no admin token is at hand',

  async run([action = '--help', ...args], env) {
    if (args.includes('--help') || args.includes('-h') || action === '--help' || action === '-h') {
      process.stdout.write(HELP);
      return 0;
    }
    if (action !== 'create' && action !== 'list')
      throw new ConfigError(`token: no action ${JSON.stringify(action)}; see bootbundle token --help`);
    const flags = readFlags(`token ${action}`, args);
    const wish = action === 'create' ? readWish(flags) : null;
    const config = readConfig(env, flags);
    process.umask(0o077);
    const { withTokens } = await import('../main.ts');
    process.stdout.write(await withTokens(config, (tokens) => (wish ? create(tokens, wish) : list(tokens))));
    return 0;
  },
};

const HELP = `bootbundle token create [--name NAME] [--role ROLE] [--expires-in 90d] [--bundles 'web-*,base'] [--instances 'web-*'] [--data-dir DIR]
bootbundle token list [--data-dir DIR]

create prints the token, this once. The role is ${ROLES.join(', ')} (default admin); the name is what the audit knows its bearer by.
Both may run while the service does, and need its BOOTBUNDLE_KEY and BOOTBUNDLE_DATABASE_URL where those are set.
`;

interface Wish {
  name: string | null;
  role: Role;
  bundles: NamePatterns;
  instances: NamePatterns;
  expiresIn: number | null;
}

/** Takes the flags of `create` out, so that what is left is the configuration's. @throws ConfigError */
function readWish(flags: Map<string, string>): Wish {
  const take = (name: string): string | null => {
    const value = flags.get(name) ?? null;
    flags.delete(name);
    return value;
  };
  const patterns = (name: string): NamePatterns =>
    take(name)
      ?.split(',')
      .map((pattern) => pattern.trim()) ?? null;
  const role = ROLES.find((each) => each === (flags.get('role') ?? 'admin'));
  if (!role) throw new ConfigError(`--role: must be ${ROLES.join(', ')}`);
  take('role');
  const expires = take('expires-in');
  const expiresIn = expires === null ? null : parseDuration(expires);
  if (expires !== null && expiresIn === null)
    throw new ConfigError('--expires-in: a whole number of s, m, h or d, such as 90d');
  return { name: take('name'), role, bundles: patterns('bundles'), instances: patterns('instances'), expiresIn };
}

async function create(tokens: TokenService, { name, role, bundles, instances, expiresIn }: Wish): Promise<string> {
  const expiry = expiresIn === null ? null : { in: expiresIn };
  const { text } = await tokens.create(
    { name: name ?? `host-${Date.now().toString(36)}`, role, scope: { bundles, instances }, expiry },
    HOST_ADMIN,
  );
  return `${text}\n`;
}

const PAGE = 1000;

async function list(tokens: TokenService): Promise<string> {
  const found: Token[] = [];
  for (;;) {
    const page = await tokens.list({ after: found.at(-1) ?? null, limit: PAGE }, HOST_ADMIN);
    found.push(...page);
    if (page.length < PAGE) break;
  }
  const now = Date.now();
  const heading = ['ID', 'NAME', 'ROLE', 'STATE', 'BUNDLES', 'INSTANCES'];
  const rows = found.map((each) => [
    each.id,
    each.name,
    each.role,
    tokenState(each, now),
    ...[each.scope.bundles, each.scope.instances].map((patterns) => (patterns === null ? '*' : patterns.join(',') || 'none')),
  ]);
  const widths = heading.map((_, column) => Math.max(...[heading, ...rows].map((row) => row[column]?.length ?? 0)));
  const lines = [heading, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}
