// Precision and recall of each class at any threshold, computed from judged scores. Pure: it must not know the page.

/** The threshold that an address names, else that of the classifier. */
export function chooseThreshold(query, classifier) {
  const value = Number(query.get("threshold") ?? NaN);
  return value >= 0 && value <= 1 ? value : classifier.threshold;
}

export class ThresholdCurves {
  // `scores`: {classes, actual: [index or -1], scores: [[…]…]} of the API. Sorting once makes each move of the slider cheap.
  constructor({ classes, actual, scores }) {
    this.images = actual.length;
    this.columns = classes.map((_name, index) => {
      const order = scores.map((row, image) => ({ score: row[index], right: actual[image] === index }));
      order.sort((a, b) => b.score - a.score);
      const rightUpTo = new Uint32Array(order.length + 1);
      order.forEach((entry, position) => {
        rightUpTo[position + 1] = rightUpTo[position] + (entry.right ? 1 : 0);
      });
      return { descending: order.map((entry) => entry.score), rightUpTo };
    });
  }

  // Of one class: {precision, recall}. Precision is undefined where the class is returned for no image.
  at(index, threshold) {
    const { descending, rightUpTo } = this.columns[index];
    const returned = countAtLeast(descending, threshold);
    const right = rightUpTo[returned];
    const images = rightUpTo[descending.length];
    return { precision: returned ? right / returned : undefined, recall: images ? right / images : undefined };
  }
}

function countAtLeast(descending, threshold) {
  let low = 0;
  let high = descending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (descending[middle] >= threshold) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
