"""Which encoding an archive's names are in, and whether they can lie side by side."""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from colabkit.datasets.archives import names as usual
from colabkit.datasets.archives.members import PathColumn
from colabkit.datasets.archives.safety import parents
from colabkit.errors import ArchiveUnsafeError

SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    "用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政"
    "美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员"
    "解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件"
    "计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象"
    "完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔图像片训"
    "练测试标签集验证猫狗车花照相视频音文件夹项目课作业报告实验模型结果检测分割影样本原始备份新建压缩资料下载"
    "医学遥感鸟鱼草树房屋船飞道路行人脸姓名编号北京上海中国年月日第章节附录说明表格简历论文答案习题班级"
)
TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡"
    "用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實"
    "日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政"
    "美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員"
    "解水名真論處走義各入幾口認條平系氣題活爾更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件"
    "計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像難且權思王象"
    "完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運筆圖片訓練"
    "測試標籤集驗證貓狗車花照視頻音檔案夾項課業報告模型檢割影樣始備份壓縮料載臺灣香港醫鳥魚樹屋船飛臉姓編號"
)
KANJI = (
    "日一国会人年大十二本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市業内相方四定今回"
    "新場金員九入選立開手米力学問高代明実円関決子動京全目表戦経通外最言氏現理調体化田当八六約主題下首意法"
    "不来作性的要用制治度務強気小七成期公持野協取都和統以機平総加山思家話世受区領多県続進正安設保改数記院"
    "女初北午指権心界支第産結百派点教報済書府活原先共得解名交資予川向際査勝面委告軍文反元重近千考判認画海"
    "参売利組知案道信策集在件団別物側任引使求所次水半品昨論計死官増係感特情投示変打男基私各始島直両朝革価"
    "式確村提運終挙果西勢減台広容必応演電歳住争談能無再位置企真流格有疑口過局少放税検藤町常校料沢裁状工建"
    "語球営空職証土与急止送援供可役構木割聞身費付施切由説転食比難防補車優夫研収断井何南石足違消境神番規術"
    "護展態導鮮備宅害配副算視条幹独警宮究育席輸訪楽起万着乗店述残想線率病農州武声質念待試族象銀域助労例衛"
    "画像犬猫写真花資料動画音声学習訓練試験結果鳥魚新規作成名前"
)
HANGUL = (
    "이다는의가에고을하지도한로기사은인자나를어그대리서수아시것들보정장부있일전제상주안해구스과만조원소공"
    "면으라어여경무비국관마동실우유영호신성우교학생당적내연계용치분선오세년월회문방불명화개발물산요운행위"
    "입저타트드음식중진차출통파표품하함합현형후강건검결고과광군권금급김난남노농단담독두드등라람랑래력료류"
    "름목미민바반번법변복본북사새석설속손술승심악안야양언업없역열예와완외원육응의이임작재점접족종좌주준"
    "즈증직집참책처철청체초총최추축충측층친코크클키터테토투특판편평포프플필한항향허험혁협형호혼환황회효훈"
    "데이터사진이미지학습시험결과고양이강아지자동차꽃폴더새파일영상음성한국어서울복사본번째모음정답문제"
    "과제발표자료보고서최종수업연습나무바다하늘사람얼굴글씨손글씨검증훈련테스트모델"
)
FALLBACK = "cp437"
_SAMPLE = 2000
# What no language scores is not guessed: zip prescribes cp437.
_ENOUGH = 0.3
_USUAL, _POSSIBLE, _RARE = 1.0, 0.45, 0.08
_Judge = Callable[[str, bytes], float]
_Key = Callable[[str], str]
_Hashes = array  # of 8 bytes a name, where a set of names takes a hundred
_HINT = "Pack the data again without it."
_CASE_HINT = "Pass dest= on a disk that keeps both, or rename one of them."


def _by_usual(characters: str, ranges: Sequence[tuple[int, int]]) -> _Judge:
    """Returns a judge of two-byte characters: usual ones, those in a lead byte's range, others."""
    known = frozenset(characters)

    def judge(character: str, raw: bytes) -> float:
        if character in known:
            return _USUAL
        if unicodedata.category(character)[0] in "PS":
            return _POSSIBLE if ord(character) >= 0x2000 else _RARE
        if len(raw) == 2 and raw[1] >= 0x40 and any(a <= raw[0] <= b for a, b in ranges):
            return _POSSIBLE
        return _RARE

    return judge


def _simplified(character: str, raw: bytes) -> float:
    # Only GBK has characters whose second byte is low: traditional or rare ones.
    return min(_in_gb2312(character, raw), _USUAL if raw[-1] >= 0xA1 else _POSSIBLE / 2)


def _japanese(character: str, raw: bytes) -> float:
    if "\u3041" <= character <= "\u30ff":
        return _USUAL
    if len(raw) == 1:
        return 0.5  # half-width kana: there are only sixty, so that chance hits them often
    return _in_jis(character, raw)


def _letters(letters: str) -> _Judge:
    known = frozenset(letters)
    # Box-drawing between letters speaks against them.
    return lambda character, _: 0.75 if character in known else -1.0


_in_gb2312 = _by_usual(usual.SIMPLIFIED, [(0xB0, 0xD7)])
_in_jis = _by_usual(usual.KANJI, [(0x88, 0x97)])
_ACCENTED = "äöüßÄÖÜéèêëàâçîïôùûÉÈÀÇñÑáíóúåÅæÆøØ¡¿ìòœãõÃÕÁÍÓÚÂÊÔ"
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
_JUDGES: dict[str, _Judge] = {
    "gb18030": _simplified,
    "cp932": _japanese,
    "big5hkscs": _by_usual(usual.TRADITIONAL, [(0xA4, 0xC6)]),
    "cp949": _by_usual(usual.HANGUL, [(0xB0, 0xC8)]),
    "cp437": _letters(_ACCENTED),
    "cp850": _letters(_ACCENTED),
    "cp1252": _letters(_ACCENTED),
    "cp866": _letters(_CYRILLIC + _CYRILLIC.upper()),
    "cp1251": _letters(_CYRILLIC + _CYRILLIC.upper()),
}
_OF_LATIN = frozenset({"cp437", "cp850", "cp1252"})
_OF_TWO_BYTES = frozenset({"gb18030", "cp932", "big5hkscs", "cp949"})
# In GBK a cat (C3 A8) is an è alone as UTF-8, and a map (CD BC) a letter that no word has.
_LETTERS = rb"(?:[\xc2-\xdf][\x80-\xbf])+"
_SHORT = rb"(?:[\0-\x7f]*" + _LETTERS + rb")+[\0-\x7f]*"
_AS_IN_WORDS = rb"[A-Za-z]" + _LETTERS + rb"|" + _LETTERS + rb"[A-Za-z]"
_NOT_IN_USE = rb"[\xc6-\xcb\xcd][\xa1-\xbf]"


def encoding_of(names: Iterable[bytes]) -> str:
    """Returns the encoding in which names are most likely written, one for all of them.

    Args:
        names: Names with bytes beyond ASCII; those that are valid UTF-8 say nothing.

    Returns:
        "utf-8" where all are valid, else the one whose characters are most usual: Chinese,
        Japanese, Korean, Western European or Russian; else "cp437", which zip prescribes.
    """
    sample = list(itertools.islice((name for name in names if not _is_utf8(name)), _SAMPLE))
    if not sample:
        return "utf-8"
    scores = {encoding: _score(sample, encoding) for encoding in _JUDGES}
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] >= _ENOUGH else FALLBACK


def decoded(name: bytes, encoding: str, *, is_given: bool = False) -> str:
    """Returns a name as text: as UTF-8 where it is, else in an encoding, else as cp437.

    An encoding that the user gave comes first, and one of two bytes where UTF-8 is unlikely.
    """
    is_first = is_given or (encoding in _OF_TWO_BYTES and is_doubtful(name))
    for candidate in (encoding, "utf-8") if is_first else ("utf-8", encoding):
        try:
            return name.decode(candidate)
        except UnicodeDecodeError:
            continue
    return name.decode(FALLBACK)


def is_doubtful(name: bytes) -> bool:
    """Whether a name that is valid UTF-8 may well be one in an encoding of two bytes."""
    if re.fullmatch(_SHORT, name) is None:
        return False
    return re.search(_AS_IN_WORDS, name) is None or re.search(_NOT_IN_USE, name) is not None


class NameReader:
    """Decodes names that come one by one, in one encoding.

    Args:
        encoding: The encoding, None to judge by the first name that is no UTF-8.
        is_given: Whether the user told it.
    """

    def __init__(self, encoding: str | None, *, is_given: bool) -> None:
        self.encoding = encoding
        self._is_given = is_given
        self._sample: list[bytes] = []
        self._doubtful = False

    def text(self, name: bytes, *, says_utf8: bool = False) -> str:
        """Returns a name as text.

        Args:
            name: Its bytes.
            says_utf8: Whether where it stands is for UTF-8 alone, which not all writers heed.
        """
        if name.isascii():
            return name.decode("ascii")
        if self._is_given and not (says_utf8 and _is_utf8(name)):
            return decoded(name, self.encoding or "", is_given=True)
        if not _is_utf8(name):
            if self.encoding is None:
                self.encoding = encoding_of([name])
            if len(self._sample) < _SAMPLE:
                self._sample.append(name)
        elif self.encoding is None:
            self._doubtful = self._doubtful or is_doubtful(name)
        return decoded(name, self.encoding or "utf-8")

    def better(self) -> str | None:
        """Returns the encoding that all names together speak for, None where it was taken."""
        if not self._sample:
            return None
        encoding = encoding_of(self._sample)
        was_taken = encoding == self.encoding
        return (
            None if was_taken and not (self._doubtful and encoding in _OF_TWO_BYTES) else encoding
        )


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _score(names: Sequence[bytes], encoding: str) -> float:
    """Returns how usual characters are beyond ASCII, by their bytes; 0 where one is none."""
    judge, good, whole = _JUDGES[encoding], 0.0, 0
    for name in names:
        try:
            text = name.decode(encoding)
        except UnicodeDecodeError:
            return 0.0
        for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
            if character.isascii():
                if encoding not in _OF_LATIN and len(character.encode(encoding)) > 1:
                    whole += 2
                continue
            raw = character.encode(encoding, "replace")
            likely = _fits(character, before, after, encoding in _OF_LATIN) if len(raw) == 1 else 1
            worth = judge(character, raw)
            good += len(raw) * (worth * likely if worth > 0 else worth)
            whole += len(raw)
    return good / whole if whole else 0.0


def _fits(character: str, before: str, after: str, of_latin: bool) -> float:
    """Returns how likely a character of one byte is between its neighbours."""
    if character.isupper() and before.islower():
        return -2.0
    beside_latin = any(c.isascii() and c.isalpha() for c in (before, after))
    # Between letters of ASCII an accent is likely, a kana or a Russian letter is not.
    return 1.0 if beside_latin == of_latin else 0.4


def folders_of(paths: Iterable[str]) -> dict[str, None]:
    """Returns the folders that these paths need, those above before those below."""
    found: set[str] = set()
    for chunk in _chunks(paths):
        found.update({path.rpartition("/")[0] for path in chunk})
    found.update([above for folder in found for above in parents(folder)])
    found.discard("")
    return dict.fromkeys(sorted(found))


def folded(path: str) -> str:
    """Returns what a disk that ignores case takes a path for."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def check_clashes(paths: Sequence[str], folders: Iterable[str], *, keeps_case: bool = True) -> None:
    """Raises where two members want one name.

    Args:
        paths: Files and links.
        folders: Every folder, also those only implied.
        keeps_case: Whether names that differ in case only are two on the disk.

    Raises:
        ArchiveUnsafeError: A name comes twice, or is both a file and a folder.
    """
    folders = list(folders)
    key: _Key = str if keeps_case else folded
    hashes = _hashes(paths, key)
    _check_twice(paths, hashes, key)
    _check_both(paths, hashes, folders, key)
    if not keeps_case:
        _check_folders(folders)


def replaced(paths: Sequence[str], order: Sequence[int]) -> list[int]:
    """Returns the places of paths that come again later.

    Args:
        paths: The paths.
        order: Where each stands in the archive.
    """
    hashes = _hashes(paths, str)
    last: dict[str, int] = {}
    found: list[int] = []
    for index in sorted(_places(hashes, _doubled(hashes)), key=order.__getitem__):
        before = last.get(paths[index])
        if before is not None:
            found.append(before)
        last[paths[index]] = index
    return found


def _doubled(hashes: _Hashes[int]) -> set[int]:
    seen = set(hashes)
    if len(seen) == len(hashes):
        return set()
    return {each for each in hashes if each not in seen or seen.remove(each)}  # type: ignore[func-returns-value]


def _places(hashes: _Hashes[int], wanted: Collection[int]) -> Iterator[int]:
    """Yields where the hashes stand that are asked for."""
    if wanted:
        yield from (index for index, each in enumerate(hashes) if each in wanted)


def _chunks(paths: Iterable[str]) -> Iterable[Iterable[str]]:
    return paths.chunks() if isinstance(paths, PathColumn) else [paths]


def _hashes(paths: Sequence[str], key: _Key) -> _Hashes[int]:
    out = array("q")
    for chunk in _chunks(paths):
        names = list(chunk)
        if key is folded and "".join(names).isascii():
            keys: Iterable[str] = map(str.lower, names)
        else:
            keys = map(key, names)
        out.extend(map(hash, keys))
    return out


def _check_twice(paths: Sequence[str], hashes: _Hashes[int], key: _Key) -> None:
    seen: dict[str, int] = {}
    for index in _places(hashes, _doubled(hashes)):
        first = seen.setdefault(key(paths[index]), index)
        if first != index:
            raise _clash(paths[index], paths[first])


def _check_both(
    paths: Sequence[str], hashes: _Hashes[int], folders: Sequence[str], key: _Key
) -> None:
    by_key = {key(folder): folder for folder in folders}
    for index in _places(hashes, set(map(hash, by_key))):
        path = paths[index]
        if (folder := by_key.get(key(path))) is not None:
            raise _clash(path, folder + "/")


def _check_folders(folders: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for folder in folders:
        other = seen.setdefault(folded(folder), folder)
        if other != folder:
            raise _clash(folder + "/", other + "/")


def _clash(path: str, other: str) -> ArchiveUnsafeError:
    if path == other:
        message = f"Member {path!r} is in the archive twice."
        return ArchiveUnsafeError(message, member=path, hint=_HINT)
    if path == other.rstrip("/"):
        message = f"Member {path!r} is both a file and a folder."
        return ArchiveUnsafeError(message, member=path, hint=_HINT)
    message = f"Members {path!r} and {other!r} are one name where case does not count."
    return ArchiveUnsafeError(message, member=path, hint=_CASE_HINT)


class Names:
    """The same checks for members that come one by one."""

    def __init__(self, *, keeps_case: bool) -> None:
        self._key: _Key = str if keeps_case else folded
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {"": ""}
        self._listed: dict[str, str] = {}
        self._last = ""

    def has_file(self, path: str) -> bool:
        """Whether a file or link of just this name came before."""
        return self._files.get(self._key(path)) == path

    def add_file(self, path: str) -> list[str]:
        """Takes a file's or link's name; returns the folders that it is the first to need."""
        folder = path.rpartition("/")[0]
        # Most lie in the folder of the one before.
        fresh = [] if folder == self._last else self.add_folder(folder)
        self._last = folder
        key = self._key(path)
        if self._listed and self._listed.get(key) == path:
            # As in tar, a file takes the place of a folder of its name that stays empty.
            del self._listed[key]
        if self._files.setdefault(key, path) != path:
            raise _clash(path, self._files[key])
        if key in self._folders:
            raise _clash(path, self._folders[key] + "/")
        return fresh

    def list_folder(self, path: str) -> None:
        """Takes the name of a folder that is a member itself, and may stay empty."""
        key = self._key(path)
        if key in self._files:
            raise _clash(path, path + "/")
        self._listed[key] = path

    def add_listed(self) -> list[str]:
        """Returns those folders that were listed and are not there yet, the upper ones first."""
        return [above for folder in self._listed.values() for above in self.add_folder(folder)]

    def add_folder(self, path: str) -> list[str]:
        """Takes a folder's name; returns those not there yet, the upper ones first."""
        known = self._folders.get(self._key(path))
        if known == path:
            return []
        fresh = []
        for folder in (path, *parents(path)):
            key = self._key(folder)
            if key in self._files:
                raise _clash(folder, folder + "/")
            known = self._folders.get(key)
            if known is not None and known != folder:
                raise _clash(folder + "/", known + "/")
            if known is not None:
                break
            self._folders[key] = folder
            fresh.append(folder)
        return fresh[::-1]

    @property
    def folders(self) -> list[str]:
        """Every folder so far."""
        return [folder for folder in self._folders.values() if folder]
