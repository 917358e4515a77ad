/** Which words were recognised wrongly. */

const words = (text) => text.trim().split(/\s+/).filter(Boolean);

/**
 * The cheapest way from what was said to what was heard: a list of {said, heard}, one of which may be null.
 * Equal words cost nothing, anything else one.
 */
export function align(said, heard) {
  const [a, b] = [words(said), words(heard)];
  const cost = Array.from({ length: a.length + 1 }, (_, i) => [i]);
  for (let j = 1; j <= b.length; j++) cost[0][j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      cost[i][j] = Math.min(cost[i - 1][j - 1] + (a[i - 1] !== b[j - 1]), cost[i - 1][j] + 1, cost[i][j - 1] + 1);
    }
  }
  const steps = [];
  for (let [i, j] = [a.length, b.length]; i || j; ) {
    if (i && j && cost[i][j] === cost[i - 1][j - 1] + (a[i - 1] !== b[j - 1])) steps.push({ said: a[--i], heard: b[--j] });
    else if (i && cost[i][j] === cost[i - 1][j] + 1) steps.push({ said: a[--i], heard: null });
    else steps.push({ said: null, heard: b[--j] });
  }
  return steps.reverse();
}

/** How many words are wrong, of how many that were said. */
export function count(steps) {
  return {
    wrong: steps.filter(({ said, heard }) => said !== heard).length,
    words: steps.filter(({ said }) => said !== null).length,
  };
}

/** The word error rate, as people read it. */
export const rate = ({ wrong, words }) => `${Math.round((100 * wrong) / Math.max(1, words))} %`;
