/** Begins to measure. @returns tells the seconds since; for metrics: what time it is, only the clock says */
export function stopwatch(): () => number {
  const began = performance.now();
  return () => (performance.now() - began) / 1000;
}
