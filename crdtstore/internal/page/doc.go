// Package page is what all lists have in common that are read page by page: how long a
// page is, the cursor that continues behind it, and the first items of a sorted list.
//
// A cursor is opaque to callers. It holds the place of the last item of a page, so it stays
// good while items come and go.
package page
