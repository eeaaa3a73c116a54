"""`vitreous compare`: several models on one split with one budget, and what may be said of their differences.

ahead      what is known before any training: one split, one image size, one budget, and whether every model fits
compare    the trainings, one after the other, and what they found
cost       what each finished model costs: memory, latency on every engine, growth with the size of images
words      the verdict
view       the table for a terminal
page       comparison.html, with the figures of `pictures`
"""
