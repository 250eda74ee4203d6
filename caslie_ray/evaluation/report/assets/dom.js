// Text reaches the page through text nodes alone: there is no innerHTML anywhere in these scripts.
const byId = (id) => document.getElementById(id);
const readJson = (id) => JSON.parse(byId(id).textContent);

/** Make an element; children are nodes or strings, null ones are skipped. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const known = (value) => value !== null && value !== undefined;
const percent = (share, digits = 0) => (known(share) ? `${(100 * share).toFixed(digits)}%` : "–");
const thousands = (count) => count.toLocaleString("en");
const within = (share) => Math.min(1, Math.max(0, share));
