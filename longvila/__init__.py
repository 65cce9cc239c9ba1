"""The library behind LongVILA-pipeline: no Prefect, no work at import, no global state.

Packages, from the bottom: ``records`` and ``errors``; ``config``; ``media``, ``text`` and ``storage``;
``parallel``; ``model``, ``data`` and ``curation``; ``planning``; ``training`` and ``inference``;
``evaluation``; ``report``. Imports point down only.
"""

__version__ = "0.1.0"
