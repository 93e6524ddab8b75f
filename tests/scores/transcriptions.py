"""Slow transcriptions of the scores, formula by formula, in the shape that the released code has.

They share nothing with the package: parity tests compare the two, and the benchmark times one against the
other. Every function leaves its arguments alone, works in float64 and takes labels 0…C-1.
"""

import warnings

import numpy as np
import scipy.linalg
import scipy.stats
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors, NeighborhoodComponentsAnalysis


def logme(features, labels, *, variant="published"):
    """Fixed point on the singular values, one class after the other."""
    x = np.asarray(features, dtype=float)
    n, d = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    sigma = s**2
    evidences = []
    for c in range(labels.max() + 1):
        y = (labels == c).astype(float)
        z = u.T @ y
        outside = max((y**2).sum() - (z**2).sum(), 0.0) if n > d else 0.0
        alpha, beta = 1.0, 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            size = (sigma * z**2 / (sigma + t) ** 2).sum()
            residual = (z**2 * (t / (sigma + t)) ** 2).sum() + outside
            alpha = gamma / (size + 1e-5)
            beta = (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        terms = sigma if variant == "published" else np.concatenate([sigma, np.zeros(max(d - n, 0))])
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - 0.5 * np.log(alpha + beta * terms).sum()
        evidence -= beta / 2 * residual + alpha / 2 * size + n / 2 * np.log(2 * np.pi)
        evidences.append(evidence / n)
    return float(np.mean(evidences))


def logme_direct(features, labels):
    """The same fixed point with d x d inverses and determinants, and no singular values anywhere."""
    x = np.asarray(features, dtype=float)
    n, d = x.shape
    evidences = []
    for c in range(labels.max() + 1):
        y = (labels == c).astype(float)
        alpha, beta = 1.0, 1.0
        for _ in range(11):
            t = alpha / beta
            inverse = np.linalg.inv(alpha * np.eye(d) + beta * x.T @ x)
            m = beta * inverse @ x.T @ y
            gamma = d - alpha * np.trace(inverse)
            size, residual = m @ m, ((y - x @ m) ** 2).sum()
            alpha = gamma / (size + 1e-5)
            beta = (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        log_det = np.linalg.slogdet(alpha * np.eye(d) + beta * x.T @ x)[1]
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - log_det / 2
        evidence -= beta / 2 * residual + alpha / 2 * size + n / 2 * np.log(2 * np.pi)
        evidences.append(evidence / n)
    return float(np.mean(evidences))


def leep(logits, labels):
    """Softmax, joint distribution, conditional, mean log."""
    z = np.asarray(logits, dtype=float)
    theta = np.exp(z - z.max(axis=1, keepdims=True))
    theta /= theta.sum(axis=1, keepdims=True)
    n, classes = len(z), labels.max() + 1
    joint = np.zeros((classes, z.shape[1]))
    for i in range(n):
        joint[labels[i]] += theta[i] / n
    total = 0.0
    for i in range(n):
        likelihood = 0.0
        for k in range(z.shape[1]):
            if joint[:, k].sum() > 0:
                likelihood += joint[labels[i], k] / joint[:, k].sum() * theta[i, k]
        total += np.log(likelihood)
    return float(total / n)


def nleep(features, labels, *, seed=0):
    """PCA to 80 %, mixture with five components a class, mean likelihood without a logarithm."""
    x = PCA(0.8, random_state=42).fit_transform(features)
    classes = labels.max() + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theta = GaussianMixture(5 * classes, random_state=seed).fit(x).predict_proba(x)
    joint = np.zeros((classes, theta.shape[1]))
    for c in range(classes):
        joint[c] = theta[labels == c].sum(axis=0) / len(x)
    conditional = joint / joint.sum(axis=0)
    likelihoods = [(conditional[labels[i]] * theta[i]).sum() for i in range(len(x))]
    return float(np.mean(likelihoods))


def _discriminant(x, labels, shrinkage=None):
    """Probabilities by the generalised eigenproblem of (total - within, within), and the shrinkage used."""
    n, d = x.shape
    classes = labels.max() + 1
    priors = np.bincount(labels) / n
    means = np.array([x[labels == c].mean(axis=0) for c in range(classes)])
    within = np.zeros((d, d))
    for c in range(classes):
        within += priors[c] * np.atleast_2d(np.cov(x[labels == c].T, bias=True))
    if shrinkage is None:
        a = within.sum(axis=1)
        for _ in range(3):
            b = within @ a / np.linalg.norm(within @ a)
            a = within @ b / np.linalg.norm(within @ b)
        shrinkage = max(np.exp(-5 * (a @ within @ b)), 1e-10)
    total = np.cov(x.T, bias=True)
    total = (1 - shrinkage) * total + shrinkage * np.trace(total) / d * np.eye(d)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
    _, vectors = scipy.linalg.eigh(total - within, within)
    coefficients = means @ vectors @ vectors.T
    scores = x @ coefficients.T - 0.5 * np.diag(means @ coefficients.T) + np.log(priors)
    return _softmax(scores), shrinkage


def _softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sfda(features, labels):
    """Discriminant, softmax again, confidence mixing, discriminant with the same shrinkage."""
    x = np.array(features, dtype=float)
    classes = labels.max() + 1
    probability, shrinkage = _discriminant(x, labels)
    probability = np.exp(probability) / np.exp(probability).sum(axis=1, keepdims=True)
    means = np.array([x[labels == c].mean(axis=0) for c in range(classes)])
    for c in range(classes):
        others = np.mean([means[other] for other in range(classes) if other != c], axis=0)
        rows = np.flatnonzero(labels == c)
        confidence = probability[rows, c][:, None]
        x[rows] = confidence * x[rows] + (1 - confidence) * others
    probability, _ = _discriminant(x, labels, shrinkage)
    return float(probability[np.arange(len(x)), labels].mean())


def parc(features, labels, *, variant="published"):
    """PCA to 32, standardise, distances, Spearman over the lower triangle."""
    if variant == "published":
        pca = PCA(32, svd_solver="randomized", random_state=1919, iterated_power=1)
        x = pca.fit_transform(features).astype(float)
    else:
        x = np.asarray(features, dtype=float)
        x = PCA(min(32, len(x) - 1, x.shape[1]), svd_solver="full").fit_transform(x)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    one_hot = np.eye(labels.max() + 1)[labels]
    between_points, between_labels = 1 - np.corrcoef(x), 1 - np.corrcoef(one_hot)
    if variant == "corrected":
        between_labels = np.round(between_labels, 9)
    lower = np.tril_indices(len(x), -1)
    return float(100 * scipy.stats.spearmanr(between_points[lower], between_labels[lower])[0])


def ncti_terms(features, labels, *, variant="published"):
    """PCA to 64, shrinkage from the leading variances, discriminant, three norms."""
    if variant == "published":
        pca = PCA(64, random_state=42)
    else:
        features = np.asarray(features, dtype=float)
        pca = PCA(min(64, len(features) - 1, features.shape[1]), svd_solver="full")
    x = pca.fit_transform(features)
    shrinkage = max(np.exp(-pca.explained_variance_[:32].sum()), 1e-10)
    if shrinkage == 1e-10:
        model = LinearDiscriminantAnalysis(solver="svd")
    else:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
    low = model.fit_transform(x, labels)
    low = low - low.mean(axis=0)
    probability = model.predict_proba(x)
    spread = 0.0
    for c in range(labels.max() + 1):
        spread += np.linalg.norm(probability[labels == c], ord="nuc")
    confidence = probability[np.arange(len(x)), labels].mean()
    return float(np.linalg.norm(low, ord="nuc")), float(confidence), float(np.log(spread))


def nca(features, labels, *, variant="published", max_iter=50):
    """scikit-learn's projection and nearest neighbours."""
    x = np.asarray(features, dtype=float)
    k = min(50, *x.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = NeighborhoodComponentsAnalysis(k, init="pca", max_iter=max_iter, random_state=42)
        embedded = model.fit_transform(x, labels)
    rows = np.arange(len(x))
    if variant == "published":
        return float(
            KNeighborsClassifier(5).fit(embedded, labels).predict_proba(embedded)[rows, labels].mean()
        )
    neighbours = NearestNeighbors(n_neighbors=5).fit(embedded).kneighbors(return_distance=False)
    return float((labels[neighbours] == labels[:, None]).mean())


def lda(features, labels):
    """scikit-learn's discriminant projection, each point left out of its own neighbours."""
    low = LinearDiscriminantAnalysis(solver="svd").fit_transform(np.asarray(features, dtype=float), labels)
    neighbours = NearestNeighbors(n_neighbors=5).fit(low).kneighbors(return_distance=False)
    return float((labels[neighbours] == labels[:, None]).mean())


def hscore(features, labels):
    """Ledoit-Wolf by its definition, sums over points, and a d x d inverse."""
    x = np.asarray(features, dtype=float)
    n, d = x.shape
    x = x - x.mean(axis=0)
    covariance = x.T @ x / n
    mu = np.trace(covariance) / d
    distance = ((covariance - mu * np.eye(d)) ** 2).sum() / d
    noise = sum(((np.outer(row, row) - covariance) ** 2).sum() for row in x) / d / n**2
    alpha = min(noise, distance) / distance
    between = np.zeros((d, d))
    for c in range(labels.max() + 1):
        mean = x[labels == c].mean(axis=0)
        between += (labels == c).mean() * np.outer(mean, mean)
    shrunk = (1 - alpha) * covariance + alpha * mu * np.eye(d)
    return float((1 - alpha) * np.trace(np.linalg.solve(shrunk, between)))


def nce(logits, labels):
    """Conditional entropy from a table of counts."""
    table = np.zeros((labels.max() + 1, logits.shape[1]))
    for label, row in zip(labels, logits, strict=True):
        table[label, np.argmax(row)] += 1
    total = 0.0
    for y in range(table.shape[0]):
        for z in range(table.shape[1]):
            if table[y, z]:
                total += table[y, z] / len(labels) * np.log(table[y, z] / table[:, z].sum())
    return float(total)


def transrate(features, labels, *, distortion=1e-4):
    """Coding rates by d x d determinants."""
    x = np.asarray(features, dtype=float)
    x = x - x.mean(axis=0)

    def rate(z):
        return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * distortion))[1]

    return float(rate(x) - sum((labels == c).mean() * rate(x[labels == c]) for c in range(labels.max() + 1)))


def gbc(features, labels):
    """Bhattacharyya coefficients of every ordered pair of classes."""
    x = np.asarray(features, dtype=float)
    x = PCA(min(64, len(x) - 1, x.shape[1]), svd_solver="full").fit_transform(x)
    total = 0.0
    for a in range(labels.max() + 1):
        for b in range(labels.max() + 1):
            if a == b:
                continue
            xa, xb = x[labels == a], x[labels == b]
            va, vb = xa.var(axis=0), xb.var(axis=0)
            va, vb = np.full_like(va, va.mean()), np.full_like(vb, vb.mean())
            v = (va + vb) / 2
            exponent = ((xa.mean(axis=0) - xb.mean(axis=0)) ** 2 / v).sum() / 8
            exponent += 0.5 * np.log(v / np.sqrt(va * vb)).sum()
            total += np.exp(-exponent)
    return float(-total)


def knn(features, labels, *, k=5):
    """Leave-one-out vote, ties between classes shared."""
    x = np.asarray(features, dtype=float)
    neighbours = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors(return_distance=False)
    right = 0.0
    for i, row in enumerate(neighbours):
        votes = np.bincount(labels[row], minlength=labels.max() + 1)
        right += (votes[labels[i]] == votes.max()) / (votes == votes.max()).sum()
    return float(right / len(x))
