// Precision and recall of each class at any threshold, computed from judged scores. Pure: it must not know the page.

export class ThresholdCurves {
  // `scores`: {classes, actual: [index or -1], scores: [[…]…]} of the API. Sorting once makes each move of the slider cheap.
  constructor({ classes, actual, scores }) {
    this.classes = classes;
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

  // Of one class: {returned, right, images, precision, recall}. Precision is undefined where no image has the class returned.
  at(index, threshold) {
    const { descending, rightUpTo } = this.columns[index];
    const returned = countAtLeast(descending, threshold);
    const right = rightUpTo[returned];
    const images = rightUpTo[descending.length];
    return {
      returned,
      right,
      images,
      precision: returned ? right / returned : undefined,
      recall: images ? right / images : undefined,
    };
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
