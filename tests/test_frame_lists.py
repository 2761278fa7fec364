"""Numbers of frames as reports and warnings name them."""

from champ.frame_lists import in_short, in_words


def test_frames_in_short():
    assert in_short([17, 18, 19, 63]) == "17-19, 63" and in_short([]) == "" and in_short(range(5)) == "0-4"


def test_frames_in_words():
    assert in_words([3]) == "frame 3" and in_words([3, 4]) == "frames 3 to 4"
    assert in_words([0, 2, 3, 4, 9]) == "frames 0, 2 to 4 and 9"
    assert in_words(range(0, 40, 2)) == "frames 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
