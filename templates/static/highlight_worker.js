/**
 * Runs a regular expression over texts, apart from the page: it may be ended at any time.
 */

onmessage = ({ data: { source, flags, texts } }) => {
  let pattern;
  try {
    pattern = new RegExp(source, flags);
  } catch {
    // The server's regular expressions are a little different; then no text is marked.
  }
  const rangesOf = (text) =>
    pattern
      ? [...text.matchAll(pattern)]
          .filter(([found]) => found)
          .map(({ 0: found, index }) => [index, index + found.length])
      : [];
  postMessage(texts.map((text) => [text, rangesOf(text)]));
};
