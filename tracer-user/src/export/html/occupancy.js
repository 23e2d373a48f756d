// How many goroutines of a group were in which state, on average, in any stretch of time.

/** Sums of times up to each place of a sorted list. */
function sums(sorted) {
  const all = new Float64Array(sorted.length + 1);
  for (let at = 0; at < sorted.length; at++) all[at + 1] = all[at] + sorted[at];
  return all;
}

/** How many of a sorted list are not after a time. */
function countUpTo(sorted, time) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Spans of one state, told by when they begin and end: how much time they take up to any instant follows by two searches. */
class Occupancy {
  constructor(starts, ends) {
    this.starts = starts.sort();
    this.ends = ends.sort();
    this.startSums = sums(this.starts);
    this.endSums = sums(this.ends);
  }

  /** Time that all spans together have taken by then. */
  upTo(time) {
    const begun = countUpTo(this.starts, time);
    const ended = countUpTo(this.ends, time);
    return begun * time - this.startSums[begun] - (ended * time - this.endSums[ended]);
  }
}

/** The occupancy of each state by some lanes: `[state, occupancy]`, the states in the order in which they are stacked. */
function occupancies(data, lanes, order) {
  const counts = new Uint32Array(data.states.length);
  for (const lane of lanes) {
    for (let span = data.first[lane]; span < data.first[lane + 1]; span++) counts[data.stateOf[data.detail[span]]]++;
  }
  const lists = [...counts].map((count) => [new Float64Array(count), new Float64Array(count)]);
  counts.fill(0);
  for (const lane of lanes) {
    for (let span = data.first[lane]; span < data.first[lane + 1]; span++) {
      const state = data.stateOf[data.detail[span]];
      const place = counts[state]++;
      lists[state][0][place] = data.start[span];
      lists[state][1][place] = data.end[span];
    }
  }
  return order
    .map((name) => data.states.indexOf(name))
    .filter((state) => state >= 0 && counts[state] > 0)
    .map((state) => [state, new Occupancy(...lists[state])]);
}
