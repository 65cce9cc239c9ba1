"""The order of things, nothing else: build a data set, train, evaluate, refresh, the whole life; and the CLI.

``flows.registry`` names the flows, ``flows.params`` holds their parameters. Neither imports Prefect.
"""
