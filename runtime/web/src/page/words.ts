/** Numbers as the page says them. */

export function errorInWords(error: number | null): string {
  if (error === null) return "error not known yet";
  return error === 0 ? "exact" : `estimated error ${error < 0.095 ? error.toFixed(3) : error.toFixed(2)}`;
}

export function passesInWords({ passes, total }: { passes: number; total: number }): string {
  return passes < total ? `${counted(passes)} of ${counted(total)} passes` : `${counted(passes)} passes`;
}

export function counted(count: number): string {
  return count.toLocaleString("en");
}

export function percent(probability: number): string {
  return `${(100 * probability).toFixed(1)} %`;
}
