// Where things are on the dashboard's page.

/** The row of the checkout of this branch. */
export const row = (page, branch) => page.locator("#checkouts li", { hasText: branch });

/** In that row, the bar of all nodes of a kind; its `aria-label` counts them. */
export const bar = (page, branch, kind) => row(page, branch).locator(`.bar-cell.${kind}`);
