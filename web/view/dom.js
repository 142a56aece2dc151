// Making elements. Whatever comes from outside becomes text or an attribute value here, never markup.

/** An attribute, or a listener. @typedef {string | number | boolean | null | undefined | ((event: any) => unknown)} Prop */
/** @typedef {Node | string | null | undefined} Child */

/**
 * An element. `props` are attributes, except `class`, `text` (its text) and functions, which are listeners
 * (`click: () => …`); null and false are left out.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, Prop>} [props]
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * The same for a part of a picture.
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, Prop>} [props]
 * @param {Child[]} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

/** @template {Element} E @param {E} element @param {Record<string, Prop>} props @param {Child[]} children @returns {E} */
function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "class") element.setAttribute("class", String(value));
    else if (name === "text") element.textContent = String(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Sets an element's text, if it is another one.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Sets an attribute, if it has another value.
 * @param {Element} element
 * @param {string} name
 * @param {string} value
 */
export function setAttr(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Makes the children of `parent` show `items` in order, moving, making and removing as few as possible.
 * `elements` (a Map that the caller keeps) has the element of each key.
 * @template Item, Key
 * @template {HTMLElement} E
 * @param {Element} parent
 * @param {Map<Key, E>} elements
 * @param {Item[]} items
 * @param {{key: (item: Item) => Key, create: (item: Item) => E, update?: (element: E, item: Item) => void}} how
 */
export function showKeyed(parent, elements, items, { key, create, update }) {
  const wanted = new Set(items.map(key));
  for (const [known, element] of elements) {
    if (wanted.has(known)) continue;
    element.remove();
    elements.delete(known);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = elements.get(name);
    if (!element) elements.set(name, (element = create(item)));
    update?.(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
}
