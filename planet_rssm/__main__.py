"""`python -m planet_rssm` is `planet`."""

from planet_rssm.cli.main import main

main()
