import numpy as np

from planet_rssm.report.dream_video import GAP, HEAD, IMAGINED, OBSERVED, PANEL, STRIP, panels


def test_truth_prediction_and_error_lie_side_by_side_under_a_strip_that_says_what_was_seen():
    truth, prediction = np.full((2, 3, 64, 64, 3), 0.25), np.full((2, 3, 64, 64, 3), 1.0)
    truth[1], prediction[1] = 0.8, 0.6
    frames = list(panels(truth, prediction, context=2))
    assert [frame.shape for frame in frames] == [
        (HEAD + 2 * (PANEL + STRIP), 3 * PANEL + 2 * GAP, 3)
    ] * 3
    assert all(frame.dtype == np.uint8 for frame in frames)
    for time, colour in enumerate((OBSERVED, OBSERVED, IMAGINED)):
        assert (frames[time][HEAD : HEAD + STRIP] == colour).all()
    for row, values in enumerate(((64, 255, 191), (204, 153, 51))):
        top = HEAD + STRIP + row * (PANEL + STRIP)
        for column, value in enumerate(values):
            left = column * (PANEL + GAP)
            panel = frames[0][top : top + PANEL, left : left + PANEL]
            assert panel.shape == (PANEL, PANEL, 3)
            assert (panel == value).all()


def test_a_pixel_stays_a_square():
    truth = np.zeros((1, 1, 32, 32, 3))
    truth[0, 0, 3, 5] = 1
    (frame,) = panels(truth, truth, 0)
    times = PANEL // 32
    lit = np.argwhere(frame[HEAD + STRIP :, :PANEL, 0] == 255)
    assert lit.min(0).tolist() == [3 * times, 5 * times]
    assert lit.max(0).tolist() == [4 * times - 1, 6 * times - 1]


def test_words_name_the_pictures_and_say_whether_the_model_sees():
    truth = np.zeros((1, 3, 32, 32, 3))
    heads = [frame[:HEAD] for frame in panels(truth, truth, context=2)]
    width = heads[0].shape[1] // 3
    assert all(
        (heads[0][HEAD // 2 :, place * width : (place + 1) * width] == 255).any()
        for place in range(3)
    )
    for head, colour in zip(heads, (OBSERVED, OBSERVED, IMAGINED), strict=True):
        assert (head[: HEAD // 2] == colour).all(-1).any()
