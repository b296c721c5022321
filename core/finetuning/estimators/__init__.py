"""Forests, boosted trees and regressions: how they are fitted, cross-validated and compared."""
