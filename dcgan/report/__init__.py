"""One HTML file that shows a run: `dcgan report RUN`.

It is read offline: pictures, numbers, style and script are all in it, and a policy in it forbids the
browser to fetch anything.

reading.py   what the run's directory holds
needed.py    how much memory the page takes
findings.py, samples.py, charts.py, evaluations.py, networks.py, recipe.py, machine.py   a section each
looking.py   what every layer makes of a picture
heatmaps.py  numbers as colours
embedded.py, drawing.py   pictures in the page; what its script draws
page.py, page.css, page.js   the whole; writing.py   the file
"""
