"""Linear classifiers on features that are computed once: closed-form ridge, logistic regression, nearest neighbours.

Everything is imported by name. Shapes: n images, d features, r principal components, k classes.
"""
