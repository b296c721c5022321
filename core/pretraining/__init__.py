"""How does a model learn without labels?"""
