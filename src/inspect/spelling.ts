/** The known key that was most likely meant: spelt alike but for case and dashes, or a slip or two away. Null where none is close. */
export function closestKey(key: string, known: Iterable<string>): string | null {
  const limit = key.length < 3 ? 0 : key.length < 6 ? 1 : 2;
  const plain = (text: string) => text.toLowerCase().replaceAll(/[-_ ]/g, '');
  const wanted = plain(key.slice(0, 100));
  let best: string | null = null;
  let least = limit + 1;
  for (const each of known) {
    const apart = Math.abs(each.length - key.length);
    if (apart <= 4 && plain(each) === wanted) return each;
    if (apart > limit || each.length < 4) continue;
    const distance = editDistance(key, each, limit);
    if (distance < least) [best, least] = [each, distance];
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours (optimal string alignment); anything past the limit is limit + 1. */
function editDistance(a: string, b: string, limit: number): number {
  let [before, row] = [[] as number[], Array.from({ length: b.length + 1 }, (_, at) => at)];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      next[j] = Math.min(
        (row[j] as number) + 1,
        (next[j - 1] as number) + 1,
        (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1),
        swapped ? (before[j - 2] as number) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    [before, row] = [row, next];
    if (Math.min(...row) > limit) return limit + 1;
  }
  return row[b.length] as number;
}
