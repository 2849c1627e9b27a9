const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['y', 'Y', 'yes', 'Yes', 'YES', 'true', 'True', 'TRUE', 'on', 'On', 'ON'].map((word) => [word, true] as const),
  ...['n', 'N', 'no', 'No', 'NO', 'false', 'False', 'FALSE', 'off', 'Off', 'OFF'].map((word) => [word, false] as const),
]);
const INTEGER = /^[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)$/;
const FLOAT = /^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$/;
const NOT_A_NUMBER = /^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

/**
 * An unquoted YAML scalar as kubectl reads it (sigs.k8s.io/yaml on go-yaml 2, tried with kubectl 1.32): unlike for PyYAML `y` is true, `1e3`,
 * `0o644` and `08` are numbers, and `1:30` and `2024-01-01` are strings. What JSON cannot hold, such as `.inf`, is NaN.
 */
export function readGoScalar(plain: string): string | number | boolean | null {
  if (plain === '' || plain === '~' || /^(?:null|Null|NULL)$/.test(plain)) return null;
  const boolean = BOOLEANS.get(plain);
  if (boolean !== undefined) return boolean;
  if (NOT_A_NUMBER.test(plain)) return Number.NaN;
  if (!/^[-+.0-9]/.test(plain)) return plain;
  // Underscores part digits, unless a dot comes first.
  const digits = plain.startsWith('.') ? plain : plain.replaceAll('_', '');
  if (INTEGER.test(digits)) return integer(digits);
  const value = FLOAT.test(digits) ? Number(digits) : Number.NaN;
  return Number.isFinite(value) ? value : plain;
}

function integer(digits: string): number {
  const [, sign = '', magnitude = ''] = /^([-+]?)(.*)$/.exec(digits) ?? [];
  const value = Number(/^0[0-7]/.test(magnitude) ? `0o${magnitude}` : magnitude.toLowerCase());
  return sign === '-' ? -value || 0 : value;
}
