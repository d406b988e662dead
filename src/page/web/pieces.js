// Cuts a text that grows into pieces, so that what was drawn once stays as it is and only the last piece is drawn again.

/** A piece of this length ends at its next line break. */
export const SOFT = 800;
/** No piece is longer. */
export const HARD = 2_000;

/** What must not begin a piece: it belongs to the character before it. */
const BELONGS = /^[\p{M}\p{Emoji_Modifier}\u200d\ufe0e\ufe0f\udc00-\udfff]/u;

/**
 * Appends to the last of `pieces`, and begins new ones where it is full. Together they are always the whole text.
 * @param {string[]} pieces
 * @param {string} text
 */
export function append(pieces, text) {
  let open = (pieces.pop() ?? "") + text;
  for (let end = endOfPiece(open); end > 0; end = endOfPiece(open)) {
    pieces.push(open.slice(0, end));
    open = open.slice(end);
  }
  if (open || pieces.length === 0) {
    pieces.push(open);
  }
}

/**
 * Where the first piece of `text` ends; 0 where it may still grow.
 * @param {string} text
 */
function endOfPiece(text) {
  if (text.length <= SOFT) {
    return 0;
  }
  const lineBreak = text.indexOf("\n", SOFT);
  if (lineBreak >= 0 && lineBreak < HARD) {
    return lineBreak + 1;
  }
  if (text.length <= HARD) {
    return 0;
  }
  const space = text.lastIndexOf(" ", HARD - 1);
  return space >= SOFT ? space + 1 : betweenCharacters(text, HARD);
}

/**
 * The last place at or before `end` where a character ends.
 * @param {string} text
 * @param {number} end
 */
function betweenCharacters(text, end) {
  for (let at = end; at > end - 64; at -= 1) {
    const joined = text[at - 1] === "\u200d" || /[\ud800-\udbff]/.test(text[at - 1]);
    if (!joined && !BELONGS.test(text.slice(at, at + 2))) {
      return at;
    }
  }
  return end;
}
