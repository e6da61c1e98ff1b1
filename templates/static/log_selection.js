/**
 * What of a log is selected, also where its rows are no longer in the page.
 *
 * The browser selects; the rows where its selection begins and ends stay in the page, out of sight,
 * for as long as they do (see Scroller). So its selection stays right while rows between them come
 * and go, and what is to be copied is told by line numbers.
 */

/** Listens to selections within `lines`, the element with the rows, and `partial` after it. */
export class LogSelection {
  #lines;
  #block;
  #onSelected;
  #ends = [];

  /** Whether the whole log is selected. */
  all = false;

  constructor(lines, { onSelected }) {
    this.#lines = lines;
    this.#block = lines.parentElement;
    this.#onSelected = onSelected;
    document.addEventListener("selectionchange", () => this.#changed());
  }

  /** Whether the row of line `number` must stay in the page. */
  isPinned(number) {
    return this.#ends.includes(number);
  }

  /** Selects the whole log. */
  selectAll() {
    // Its ends are places in the block, not in rows: rows may come and go within it.
    getSelection().setBaseAndExtent(this.#block, 0, this.#block, this.#block.childNodes.length);
    this.all = true;
    this.#onSelected();
  }

  /**
   * What is selected, in the order of lines: `[{number, column}, {number, column}]`, where column
   * counts characters of the text (Infinity: to its end, with the newline); null for nothing.
   */
  get range() {
    const selection = getSelection();
    if (selection.rangeCount === 0 || selection.isCollapsed) {
      return null;
    }
    const range = selection.getRangeAt(0);
    if (!range.intersectsNode(this.#block)) {
      return null;
    }
    const rows = [...this.#block.querySelectorAll(".log-line:not([hidden])")];
    const touched = rows.filter((row) => range.intersectsNode(row));
    if (touched.length === 0) {
      return null;
    }
    return [
      place(touched[0], range.startContainer, range.startOffset, 0),
      place(touched.at(-1), range.endContainer, range.endOffset, Infinity),
    ];
  }

  #changed() {
    const selection = getSelection();
    if (this.all && (selection.isCollapsed || selection.anchorNode !== this.#block)) {
      this.all = false;
    }
    this.#ends = [];
    // A caret too: a click with Shift selects from there on.
    if (selection.rangeCount) {
      for (const node of [selection.anchorNode, selection.focusNode]) {
        const row = rowOf(node);
        if (row && this.#lines.contains(row)) {
          this.#ends.push(Number(row.dataset.number));
        }
      }
    }
    if (this.#ends.length > 0 && !selection.isCollapsed) {
      this.#onSelected();
    }
  }
}

function rowOf(node) {
  const element = node?.nodeType === Node.ELEMENT_NODE ? node : node?.parentElement;
  return element?.closest(".log-line") ?? null;
}

// A boundary outside of the row that it cuts stands for the row's begin, or its end.
function place(row, container, offset, otherwise) {
  const number = Number(row.dataset.number);
  const text = row.querySelector(".log-text");
  if (!text.contains(container)) {
    return { number, column: otherwise };
  }
  const before = document.createRange();
  before.setStart(text, 0);
  before.setEnd(container, offset);
  return { number, column: before.toString().length };
}
