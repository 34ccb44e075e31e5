"""Commands of ``python -m training``: one a module, each named as its module.

A command imports what it needs inside itself, so that help does not wait for torch.
"""
