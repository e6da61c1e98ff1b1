/**
 * What a line of a log tells by its text alone: an error or a warning, JSON, where a group begins
 * and ends. Pure; `text` is without colours.
 */

// A level is marked where a program says it as such; a text that only mentions errors is none: "0
// errors", "no error", "error_count=0", "on_error=retry". So words in capitals count everywhere,
// others only in the forms below. The server looks for the same by grep, word for word (_ERRORS in
// tornado_logs/search.py): hence no look-around, and no flags.
const SERIOUS = "error|eror|err|critical|crit|fatal|panic|dpanic|alert|emergency|emerg|severe";

/** The ways to say that something went wrong; a line that has one of them is an error. */
export const ERROR_FORMS = [
  String.raw`\b(ERROR|ERR|FATAL|CRITICAL|CRIT|ALERT|EMERGENCY|EMERG|SEVERE|PANIC)\b`, // a word
  String.raw`\[([a-z_]+:)?(${SERIOUS})\]`, // nginx, httpd
  // "error: no such file", but not "error: 0", nor none, null, nil
  String.raw`\b([Ee]rror|[Ff]atal|panic)(\[\w+\])?:(\s*$|\s+([^0n\s]|n[^iou\s]|no[^n]|non[^e]))`,
  String.raw`\w(Error|Exception)(:|$)`, // Python, JavaScript, Java
  String.raw`^(Caused by: |Traceback \(most recent call last\)|E: |npm error |error [A-Z])`,
  String.raw`\berror [A-Z]+\d+:`, // TypeScript, .NET
  String.raw`^\s*\d+:\d+\s+error\s`, // ESLint
  String.raw`(^|\s)(level|lvl|severity)="?(${SERIOUS})\b`, // logfmt
  String.raw`"(level|lvl|severity|log\.level|@l|levelname)"\s*:\s*"(${SERIOUS}|Error|Fatal)\"`,
  String.raw`"level"\s*:\s*[56]0\s*[,}]`, // pino, bunyan
  String.raw`(^|\s)[EF]\d{4} \d\d:\d\d:\d\d\.\d`, // klog
  String.raw`\bpanicked at |^Segmentation fault|^make(\[\d+\])?: \*\*\* `,
  String.raw`^::error[: ]|##\[error\]`, // workflow commands
];

const WARN_FORMS = [
  String.raw`\b(WARN|WARNING|WRN)\b`,
  String.raw`\[([a-z_]+:)?(warn|warning)\]`,
  String.raw`\b[Ww]arning(\[\w+\])?:(\s*$|\s+([^0n\s]|n[^iou\s]|no[^n]|non[^e]))`,
  String.raw`\wWarning(:|$)`,
  String.raw`^(W: |npm warn |warning [A-Z"])`,
  String.raw`\bwarning [A-Z]+\d+:`,
  String.raw`^\s*\d+:\d+\s+warning\s`,
  String.raw`(^|\s)(level|lvl|severity)="?(warn|warning)\b`,
  String.raw`"(level|lvl|severity|log\.level|@l|levelname)"\s*:\s*"(warn|warning|Warning)"`,
  String.raw`"level"\s*:\s*40\s*[,}]`,
  String.raw`(^|\s)W\d{4} \d\d:\d\d:\d\d\.\d`,
  String.raw`^::warning[: ]|##\[warning\]`,
];

const ERROR = new RegExp(ERROR_FORMS.join("|"));
const WARN = new RegExp(WARN_FORMS.join("|"));
// What a line says by its first words or within so many characters; a longer one is text.
const MAX_CHARS = 4000;

/** A cheap test of many lines at once: without a match, none of them is an error. */
export const MAY_BE_ERROR =
  /[Ee]rr|ERR|[Ff]atal|FATAL|[Cc]rit|CRIT|[Pp]anic|PANIC|[Ee]merg|EMERG|[Aa]lert|ALERT|[Ss]ever|SEVER|eror|Exception|Traceback|Caused by|Segmentation|\*\*\* |[EF]\d{4} |"level"\s*:\s*[56]0|^[Ee]: /m;

/** How bad is what the line says: "error", "warn", or null. */
export function levelOf(text) {
  const said = text.length > MAX_CHARS ? text.slice(0, MAX_CHARS) : text;
  if (MAY_BE_ERROR.test(said) && ERROR.test(said)) {
    return "error";
  }
  return WARN.test(said) ? "warn" : null;
}

// --- JSON ----------------------------------------------------------------------------------------

const MAY_BE_JSON = /^\s*(?:\{[^]*\}|\[[^]*\])\s*$/;
const JSON_TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** Whether the line is one JSON object or array. */
export function isJson(text) {
  if (!MAY_BE_JSON.test(text)) {
    return false;
  }
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** JSON on several lines, indented; each value as it stands, for a large number has to stay one. */
export function prettyJson(text) {
  const parts = [];
  let depth = 0;
  const newLine = () => parts.push(`\n${"  ".repeat(depth)}`);
  let before = "";
  for (const [token] of text.matchAll(JSON_TOKEN)) {
    const opens = before === "{" || before === "[";
    if (token === "}" || token === "]") {
      depth -= 1;
      if (!opens) {
        newLine();
      }
    } else if (opens) {
      newLine();
    }
    parts.push(token === ":" ? ": " : token);
    if (token === "{" || token === "[") {
      depth += 1;
    } else if (token === ",") {
      newLine();
    }
    before = token;
  }
  return parts.join("");
}

// --- Groups --------------------------------------------------------------------------------------

// GitHub and its like, there with a time before it in downloaded logs.
const GROUP = /^\s*(?:\d{4}-\d\d-\d\dT[\d:.]+Z\s+)?(?:::|##\[)(end)?group(?:::|\])(.*)$/;
// GitLab's stand before a carriage return, which erases them; the server hands them on in an APC
// string (ESC _ ... ESC \). One line may end a section and begin the next.
const SECTION = /section_(start|end):\d+:([\w.:/-]+)(?:\[([^\]]*)\])?/g;
const UNSEEN = /\x1b_[^\x1b]*\x1b\\|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]/g;
const SECTION_TEXT = /section_(?:start|end):\d+:[\w.:/-]+(?:\[[^\]]*\])?\r?/g;

/**
 * What begins or ends a group on this line, in order: `{kind: "start" | "end", id, title,
 * collapsed}`. `text` may be the line as it came over the wire. `id` is null for groups without
 * names, where an end is that of the last that began.
 */
export function structuresOf(text) {
  if (text.includes("section_")) {
    const title = text.replace(UNSEEN, "").replace(SECTION_TEXT, "").trim();
    return Array.from(text.matchAll(SECTION), ([, kind, id, options]) => ({
      kind,
      id,
      title: kind === "start" ? title || id : "",
      collapsed: kind === "start" && /\bcollapsed=true\b/.test(options ?? ""),
    }));
  }
  const group = text.includes("group") && GROUP.exec(text.replace(UNSEEN, ""));
  if (!group) {
    return [];
  }
  const kind = group[1] ? "end" : "start";
  return [{ kind, id: null, title: group[1] ? "" : group[2].trim(), collapsed: false }];
}

/** The last of `structuresOf`, or null. */
export function structureOf(text) {
  return structuresOf(text).at(-1) ?? null;
}
