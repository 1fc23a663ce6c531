"""The page: layout (`layout`), what happens on it (`handlers`), what it says of its model (`about`).

The picture with its slider is a `gr.HTML` of our own: `viewer.html`, `viewer.css` and `viewer.js`.
"""
