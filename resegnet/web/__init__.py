"""The page: its layout, the handlers of its events, and what it says about the model.

The picture with its threshold slider is a `gr.HTML` of its own: `viewer.html`, `viewer.css` and `viewer.js`.
"""
