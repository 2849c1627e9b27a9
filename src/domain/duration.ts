const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const LONGEST_MS = 3650 * UNITS.d;

/** Reads `90s`, `10m`, `1h` or `7d`. @returns milliseconds, or null for anything but a whole number of s, m, h or d, from 1 s to 3650 d */
export function parseDuration(text: string): number | null {
  const [, digits, unit] = /^([1-9][0-9]{0,8})([smhd])$/.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return null;
  const milliseconds = Number(digits) * UNITS[unit as keyof typeof UNITS];
  return milliseconds <= LONGEST_MS ? milliseconds : null;
}

/** Writes milliseconds as `parseDuration` reads them, in the largest unit that is exact: `1h`, `90m`; parts of a second are rounded up. */
export function formatDuration(ms: number): string {
  const whole = Math.ceil(ms / UNITS.s) * UNITS.s;
  const units = Object.entries(UNITS).reverse();
  const [unit, size] = units.find(([, length]) => whole % length === 0) ?? ['s', UNITS.s];
  return `${whole / size}${unit}`;
}
