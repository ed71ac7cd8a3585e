import planet_rssm


def test_every_public_name_is_found():
    assert sorted(planet_rssm.__all__) == sorted(planet_rssm._MODULE_OF)
    for name in planet_rssm.__all__:
        assert getattr(planet_rssm, name).__name__ == name
        assert name in dir(planet_rssm)
