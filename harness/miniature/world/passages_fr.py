"""French scenes, words and moods for the passages. Quotation marks take ordinary spaces."""

from __future__ import annotations

from .passages_lexicon import LanguageData, Word, gendered, hinted, lines, parse_devices, plain

_VOWELS = "aeiouyâàéèêëîïôœù"


def _noun(w: str, gender: str) -> Word:
    """``le``/``un``/``du``/``au`` with articles, ``de`` without one, ``son``/``mon`` possessives, ``e`` the agreeing
    ending, ``cher`` its adjective, ``ce`` the demonstrative. Gender ``p`` is a plural; no word here has a mute h."""
    vowel = w[0].lower() in _VOWELS
    de = f"d'{w}" if vowel else f"de {w}"
    if gender == "p":
        return Word(w, le=f"les {w}", un=f"des {w}", du=f"des {w}", au=f"aux {w}", de=de)
    le = f"l'{w}" if vowel else f"{'le' if gender == 'm' else 'la'} {w}"
    if vowel:
        du, au = f"de {le}", f"à {le}"
    else:
        du, au = (f"du {w}", f"au {w}") if gender == "m" else (f"de la {w}", f"à la {w}")
    masculine_possessive = gender == "m" or vowel
    ce = ("cet" if vowel else "ce") if gender == "m" else "cette"
    return Word(
        w,
        le=le,
        un=f"{'un' if gender == 'm' else 'une'} {w}",
        du=du,
        au=au,
        de=de,
        ce=f"{ce} {w}",
        son=f"{'son' if masculine_possessive else 'sa'} {w}",
        mon=f"{'mon' if masculine_possessive else 'ma'} {w}",
        cher=f"Mon cher {w}" if gender == "m" else f"Ma chère {w}",
        e="" if gender == "m" else "e",
    )


def _place(w: str, key: str) -> Word:
    """``key`` is a preposition and a gender, e.g. ``dans-f``; ``loc`` is the phrase."""
    preposition, _, gender = key.partition("-")
    forms = {name: form for name, form in _noun(w, gender)._forms.items() if name != "w"}
    return Word(w, loc=f"{preposition} {forms['le']}", **forms)


def _name(w: str, gender: str) -> Word:
    return Word(w, il="il", le="le", e="") if gender == "m" else Word(w, il="elle", le="la", e="e")


# All names begin with a consonant that is sounded, so "de", "que" and "à" stand in full before them.
_MEN = "m: Paul Jean Pierre Louis Michel Marcel Georges Julien Lucien René Victor Gaston Bernard Fernand"
_WOMEN = "f: Marie Jeanne Claire Louise Madeleine Thérèse Marguerite Lucie Suzanne Colette Sophie Mathilde Rose Cécile"

_LEXICON = {
    "m": gendered(_MEN, _name),
    "f": gendered(_WOMEN, _name),
    "n": gendered(f"{_MEN} | {_WOMEN}", _name),
    "w": plain(
        lines("""
        un soir
        ce soir-là
        un matin d'hiver
        après le dîner
        tard dans la nuit
        par un après-midi de pluie
        avant l'arrivée des invités
        à la fin de l'été
        un peu avant minuit
        le premier jour des vacances
        peu après le lever du soleil
        par un dimanche très froid
    """)
    ),
    "o": gendered(
        "m: livre couteau miroir peigne carnet collier foulard mouchoir portrait bracelet éventail | f: clé bague "
        "lettre montre lampe photographie médaille bougie pipe boussole bouteille boîte cuillère plume enveloppe",
        _noun,
    ),
    "c": gendered(
        "dans-m: tiroir coffre panier tonneau buffet placard | dans-f: malle commode cheminée valise armoire | sous-m: "
        "lit tapis coussin banc matelas | sous-f: pierre | derrière-m: rideau piano paravent puits | derrière-f: "
        "horloge grange fontaine",
        _place,
    ),
    "r": gendered(
        "dans-f: cuisine bibliothèque cave chapelle tour serre grange chambre cour | dans-m: grenier jardin salon "
        "bureau vestibule atelier",
        _place,
    ),
    "a": gendered(
        "m: chat chien renard cheval hérisson lapin corbeau cygne mouton perroquet écureuil | f: chouette chèvre oie "
        "colombe tortue",
        _noun,
    ),
    "i": gendered(
        "m: piano violon violoncelle accordéon tambour clavecin | f: flûte guitare trompette harpe clarinette", _noun
    ),
    "j": plain(
        "boulanger médecin marin instituteur peintre tailleur jardinier meunier avocat pêcheur menuisier forgeron "
        "berger horloger notaire".split()
    ),
    "k": plain("rouge bleu vert jaune blanc noir gris brun violet".split()),
    "e": gendered(
        "m: pain fromage miel beurre jambon poisson raisin | p: pommes poires œufs cerises oignons noisettes", _noun
    ),
    "b": gendered("p: roses tulipes violettes marguerites pensées pivoines tournesols dahlias jonquilles", _noun),
    "t": plain("Paris Lyon Rouen Nantes Tours Dijon Bordeaux Marseille Strasbourg Venise Bruges Reims".split()),
    "s": plain("janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()),
    "d": plain("lundi mardi mercredi jeudi vendredi samedi dimanche".split()),
    "u": plain("trois quatre cinq six sept huit neuf dix onze douze treize quinze vingt".split()),
    "pet": plain("Médor Bruno Tonnerre Prince Filou Capitaine Noisette Ficelle Pompon".split()),
    "mat": gendered("m: cuivre fer verre marbre cuir cristal bronze bois | f: porcelaine nacre", _noun),
    "kin": gendered("f: sœur tante cousine mère marraine nièce | m: frère oncle cousin père parrain neveu", _noun),
    "tree": gendered(
        "m: chêne tilleul bouleau hêtre châtaignier noyer saule cyprès pin cerisier poirier pommier", _noun
    ),
    "v": gendered("m: train bateau traîneau autobus tramway | f: calèche diligence barque charrette péniche", _noun),
    "dr": gendered("m: thé café vin lait cidre chocolat | f: bière limonade grenadine", _noun),
    "fear": gendered("m: tonnerre feu brouillard vent noir | f: nuit mer forêt neige foudre", _noun),
    "sight": gendered("m: désert palais phare volcan château glacier | f: mer jungle cathédrale montagne", _noun),
    "cl": gendered(
        "m: chapeau manteau gant châle bonnet tablier gilet | f: veste casquette botte ceinture écharpe", _noun
    ),
    "body": gendered("m: genou pied bras doigt coude poignet dos | f: main cheville jambe hanche", _noun),
    "x": hinted(
        """
        m | parapluie | pluie | Depuis midi la pluie tombait sans arrêt
        f | bougie | noir | Le couloir était entièrement noir
        f | clé | fermée | La lourde porte était fermée
        f | plume | écrire | Il fallait écrire une longue lettre avant l'aube
        f | hache | bûches | Il n'y avait plus de bûches pour le poêle
        m | seau | puits | Il fallait tirer de l'eau du puits
        f | aiguille | recoudre | Il fallait recoudre la manche avant le bal
        f | échelle | toit | Quelqu'un devait monter sur le toit
        f | pelle | trou | Il fallait creuser un trou profond dans le jardin
        m | balai | poussière | Il y avait de la poussière dans toutes les chambres
        f | montre | heure | Personne ne savait quelle heure il était
        f | carte | chemin | Personne ne connaissait le chemin des collines
    """,
        _noun,
    ),
    "y": hinted(
        """
        m | boulanger | pâte | se levait à trois heures et pétrissait la pâte
        m | pêcheur | filets | réparait les filets et ramait sur le lac
        m | maître | tableau | écrivait les calculs au tableau
        m | médecin | malades | écoutait le cœur des malades
        m | tailleur | tissu | mesurait le tissu et coupait les pantalons
        m | jardinier | haies | arrosait les fleurs et taillait les haies
        m | forgeron | enclume | frappait le fer rouge sur l'enclume
        m | berger | troupeau | menait le troupeau de l'autre côté de la colline
        m | peintre | pinceaux | lavait les pinceaux et couvrait la toile
        m | barbier | rasoir | aiguisait le rasoir et peignait les clients
        m | meunier | farine | remplissait les sacs de farine et écoutait la roue
        m | juge | sentence | mettait sa robe et lisait la sentence
    """,
        _noun,
    ),
    "z": hinted(
        """
        f | gare | trains | Les trains sifflaient et les voyageurs traînaient leurs malles
        m | port | bateaux | Les bateaux se balançaient et les marins lançaient des cordes
        f | cathédrale | évêque | L'évêque allumait les cierges et le chœur chantait doucement
        m | lycée | élèves | Les élèves fermaient leurs cahiers et la cloche sonnait
        m | théâtre | acteurs | Les acteurs saluaient et le rideau tombait
        f | clinique | infirmières | Les infirmières couraient de lit en lit
        m | marché | étals | Les femmes criaient les prix derrière leurs étals
        m | moulin | farine | Tout était blanc de farine et la grande roue tournait
        f | prison | barreaux | Les gardiens frappaient les barreaux de fer
        f | boulangerie | pains | Des pains chauds attendaient dans la vitrine
        f | banque | argent | Les employés comptaient l'argent derrière une vitre
        m | musée | statues | Les visiteurs marchaient lentement entre les statues et les tableaux
    """,
        _noun,
    ),
    "q": hinted(
        """
        m | chien | aboyait | Quelque chose aboyait derrière la grille
        m | chat | ronronnait | Quelque chose ronronnait près de la fenêtre
        m | cheval | hennissait | Quelque chose hennissait dans la cour
        m | mouton | bêlait | Quelque chose bêlait derrière la haie
        m | hibou | hululait | Quelque chose hululait dans la vieille tour
        f | vache | meuglait | Quelque chose meuglait dans la brume
        m | cochon | grognait | Quelque chose grognait sous le banc
        m | canard | cancanait | Quelque chose cancanait au bord de l'étang
        m | coq | chantait | Quelque chose chantait sur le fumier avant l'aube
        f | abeille | bourdonnait | Quelque chose bourdonnait contre la vitre
        f | souris | couinait | Quelque chose couinait sous le plancher
        f | grenouille | coassait | Quelque chose coassait dans l'herbe mouillée
    """,
        _noun,
    ),
}

_MOODS = lines("""
    Dehors, le vent secouait les volets.
    Le feu était presque éteint.
    Le silence était si grand qu'on entendait la pendule.
    La neige tombait sur la rue déserte.
    La lune brillait au-dessus des toits.
    Une odeur de terre mouillée entrait par la fenêtre.
    Pendant un long moment, personne ne parla.
    Au loin, une cloche sonnait.
    La dernière lumière se posait sur le sol.
    L'escalier craquait comme toujours.
    Dans la pièce voisine, quelqu'un riait.
    Cette année-là, la rivière était haute.
    Les jours passaient lentement.
    La lampe jetait de longues ombres sur le mur.
    Des feuilles mortes volaient sur le chemin.
    La pluie avait enfin cessé.
    Les enfants dormaient déjà.
    Tout le village en parlait.
    La soupe refroidissait.
    Une voiture passa devant la maison.
    Les hirondelles étaient revenues de bonne heure.
    La journée avait été longue et poussiéreuse.
    La vieille servante secoua la tête.
    Les semaines devinrent des mois.
    Derrière le mur, les voisins se disputaient.
    Tout sentait la fumée et le savon.
""")

_DEVICES = parse_devices("""
[letter returned]
{w.W}, {n} lut à haute voix la lettre que {n2} avait apportée de la ville.
{w.W}, {n2} monta l'escalier avec une lettre et pria {n} de la lire.
> La dernière page lue, {n} plia le papier et le rendit à {n2}
> {n} pleura un peu, puis remercia d'une voix ferme {n2}

[hidden object]
{w.W}, {n} cacha {o.le} {c.loc} et n'en dit rien à personne.
{n} enveloppa {o.le} dans un chiffon et cacha le tout {c.loc}.
> Des années plus tard, un enfant glissa la main à cet endroit et en tira {o.le}
> En nettoyant la maison au printemps, {n2} retrouva tout à coup {o.le}

[hiding place]
{w.W}, {n} posa {o.le} {c.loc}, où aucun voleur ne regarderait.
« Il faut cacher {o.le} {c.loc} », murmura {n}, et {n2} obéit.
> La police chercha partout, mais personne ne regarda {c.loc}
> Une fois le danger passé, {n} montra en souriant {c.le}

[pair of rooms]
{n} attendait {r.loc} et {n2} {r2.loc}.
{w.W}, {n} travaillait {r.loc} pendant que {n2} dormait {r2.loc}.
> Au premier cri, {n2} sortit en courant {r2.du}
> Quand on appela {n}, la réponse vint {r.du}

[colour]
Le manteau de {n} était {k} et celui de {n2} était {k2}.
Pour la fête, {n} acheta un manteau {k}, et {n2} en choisit un {k2}.
> Dans la foule, nous avons tout de suite reconnu {n}, car le manteau était {k}
> Quelqu'un nous fit signe dans la brume ; c'était {n2}, car le manteau était {k2}

[instrument]
Tous les soirs, {n} jouait {i.du} pendant que {n2} jouait {i2.du}.
{n} avait appris à jouer {i.du} chez une vieille tante, mais {n2} préférait {i2.le}.
> Après la mort de {n}, personne dans la maison n'osa toucher {i.au}
> Pour les vingt ans de {n2}, la famille acheta {i2.un}

[animal found]
{w.W}, {n} trouva dans le jardin {a.un} qui tremblait de faim.
Derrière la remise, {n} découvrit {a.un} avec une patte blessée.
> Toute la nuit, {n} resta sans dormir et pensa {a.au}
> Le matin, {n2} apporta un bol d'eau et se mit à genoux devant {a.le}

[profession]
Le père de {m} était {j}, et le grand-père l'avait été aussi.
Dans cette famille, le fils aîné devenait toujours {j}, et {m} était l'aîné.
> Quand on lui demanda ce qu'il voulait être, {m} répondit aussitôt : {j}
> À vingt ans, {m} quitta le village et devint, bien sûr, {j}

[town]
{n} avait grandi à {t}, mais avait dû partir très tôt.
Au mur était accrochée une vieille vue de {t}, où {n} avait passé son enfance.
> Dans sa vieillesse, {n} n'avait qu'un désir, revoir une fois encore les toits de {t}
> « Un jour, disait {n} aux enfants, nous irons tous ensemble à {t}

[market]
Au marché, {n} devait acheter {e.du} et {n2} devait acheter {e2.du}.
« Il me faut {e.du} », dit la cuisinière à {n}, et {n2} fut chargé{n2.e} d'acheter {e2.du}.
> Une heure plus tard, {n} revint avec un panier plein {e.de}
> Mais {n2} dépensa tout l'argent pour autre chose que {e2.du}

[flowers]
Sous la fenêtre, {n} avait planté {b.un}, parce que {n2} les aimait.
« Quand je reviendrai, avait écrit {n2}, je veux voir {b.un} partout. »
> Le jour du retour, {n} descendit au jardin et coupa {b.le}
> Et {n} remplit toute la maison, de la cave au grenier, avec {b.un}

[person addressed]
« Entre, {n}, dit la vieille femme, et ferme la porte derrière toi. »
« Tu es en retard, {n} », dit {n2} sans lever les yeux de son livre.
> Il y avait une chaise près du feu, et sans un mot s'y installa {n}
> Une autre tasse attendait sur la table, et elle était pour {n}

[letter from]
La lettre n'avait pas de timbre, mais c'était bien l'écriture de {n}.
Pendant onze ans, on n'avait rien su de {n}, puis un paquet arriva.
> {n2} prit place sur une marche et murmura plusieurs fois le nom de {n}
> {n2} embrassa le papier et comprit qu'il y avait encore de l'espoir pour {n}

[needed thing]
{x.s}. {n} se leva avec un soupir.
{x.s}. « Je m'en occupe », dit {n}.
> {n} chercha dans toute la maison {x.un}
> De la remise sortit {n2}, qui rapportait {x.un}

[relative]
Une seule personne avait compris {n} : {kin.son}, qui vivait près de la mer.
Après la guerre, {n} vivait avec {kin.son} dans deux petites chambres.
> Le médecin demanda qui il fallait appeler, et {n} nomma {kin.son}
> Le soir, {n} écrivait de longues lettres qui commençaient ainsi : {kin.cher}

[month]
Ils s'étaient rencontrés en {s}, sur l'escalier d'un vieux théâtre.
« Je reviendrai en {s} », dit {n}, et la voiture partit.
> L'année tourna lentement, et l'on fut enfin de nouveau en {s}
> Chaque matin, {n2} regardait le calendrier et pensait au retour, en {s}

[weekday]
Le bateau de l'île ne partait qu'une fois par semaine, le {d}.
{n} avait promis de venir dîner le {d} suivant.
> Toute la semaine, {n2} compta les heures jusqu'au {d}
> {n2} prépara donc sa valise et attendit patiemment le {d}

[number]
{n} habitait au bout de la rue, dans la maison numéro {u}.
La clé que {n} avait trouvée portait le numéro {u}.
> {n2} alla de porte en porte et s'arrêta devant le numéro {u}
> « Laquelle est-ce ? » demanda {n2}, et le portier répondit : le numéro {u}

[pet]
Le chien était vieux et presque aveugle, et il s'appelait {pet}.
Le petit chien avait reçu de {n} le nom de {pet}, comme le héros d'un livre.
> {w.W}, {n} sortit devant la porte et cria dans le noir : {pet}
> Sur la petite pierre, sous l'arbre, {n2} écrivit un seul mot : {pet}

[material]
La boîte dont {n} hérita n'était pas en {mat2}, mais en {mat}.
« C'est {mat2.du} ? » demanda {n}. Le vieux marchand rit. « Non, {mat.du}. »
> {n2} approcha la chose de la lumière et vit que c'était bien {mat.du}
> Personne dans la maison n'avait jamais rien possédé en {mat}

[three suspects]
{n}, {n2} et {n3} étaient {r.loc}, mais {n2} et {n3} partirent avant dix heures.
Trois connaissaient le secret : {n}, {n2} et {n3}. Mais {n2} et {n3} étaient loin.
> Une seule personne avait donc pu prendre {o.le}, et c'était {n}
> {o.Le} avait disparu, et tous se tournèrent vers {n}

[gift]
Pour son anniversaire, {n2} reçut de {n} {o.un} dans un sac en papier.
« C'est pour toi », dit {n}, et {n2} trouva sur son lit {o.un}.
> Bien des années plus tard, {n2} gardait encore, dans un tissu de soie, {o.le}
> {n2} vendit la maison et les terres, mais jamais {o.le}

[elder sister]
Des deux sœurs, {f} était l'aînée et {f2} la plus belle.
{f} avait trois ans de plus que sa sœur {f2}.
> Selon le testament, la maison était pour l'aînée, et elle revint donc à {f}
> Les bijoux étaient pour la cadette, et on les donna donc à {f2}

[tree]
Devant la maison, il y avait {tree.un} planté par le grand-père de {n}.
Enfants, {n} et {n2} avaient gravé leurs noms dans l'écorce {tree.du}.
> Après la tempête, il ne restait plus rien {tree.du}
> L'été, tout le monde prenait le café à l'ombre {tree.du}

[vehicle]
« Je ne prendrai pas {v2.le}, dit {n}, je prendrai {v.le}. »
{n} devait prendre {v.le}, et {n2} courut à sa rencontre.
> {n2} resta deux heures debout dans le froid à attendre {v.le}
> Enfin on entendit un bruit au loin, et l'on vit arriver {v.le}

[drink]
{n} ne buvait jamais {dr2.de}, mais ne pouvait pas vivre sans {dr}.
« {dr.Du} ou {dr2.du} ? » demanda {n2}. « {dr.Du}, comme toujours », dit {n}.
> Sans rien demander de plus, {n2} alla à la cuisine et rapporta {dr.du}
> Bientôt il y eut sur la table, devant {n}, un grand verre {dr.de}

[fear]
Dans son enfance, {n} n'avait peur que d'une seule chose : {fear.le}.
{n} ne craignait ni les hommes ni les fantômes, mais redoutait {fear.le}.
> {n2} lui prit la main pour lui faire oublier {fear.le}
> Et maintenant {n} ne pouvait pas dormir et pensait sans cesse {fear.au}

[longing]
Toute sa vie, {n} rêva de voir {sight.le} dont parlait un livre d'images.
« Quand je serai plus grand{n.e}, disait toujours {n}, je verrai {sight.le}. »
> {w.W}, {n2} ouvrit le rideau, et devant eux apparut {sight.le}
> {n} mourut dans la même petite ville et ne vit jamais {sight.le}

[clothing]
{n} avait oublié {cl.son} sur le banc, au bord du lac.
« Où est {cl.mon} ? » demanda {n} en regardant sous toutes les chaises.
> Deux jours plus tard, un garçon frappa à la porte et rendit {cl.le}
> {n2} devint tout rouge, car sous son bras on voyait {cl.le}

[work implied]
Tous les jours, sans exception, {m} {y.s}.
Depuis plus de trente ans, {m} {y.s}.
> Personne ne disait son nom ; pour tout le village, il était le {y}
> « C'est un homme honnête », dit {f}, et elle épousa le {y}

[place implied]
{z.s}. {n} attendait sans bouger.
{z.s}. Au milieu de tout cela, il y avait {n}.
> À la tombée de la nuit, {n} releva son col et sortit {z.du}
> {n2}, en retard, traversa la place en courant vers {z.le}

[animal implied]
{q.s}, et {n} ne pouvait pas dormir.
{q.s}. « Tu entends ? » murmura {n}.
> {n2} prit la lanterne, alla voir et trouva {q.un}
> « N'aie pas peur, dit {n2}, ce n'est qu'{q.un}

[wound]
{n} était tombé{n.e} de l'échelle et s'était blessé{n.e} {body.au}.
Depuis la guerre, {n} sentait chaque changement de temps {body.au}.
> Le médecin vint, secoua la tête et regarda longtemps {body.le}
> {n2} fit chauffer un peu d'huile et lui frotta doucement {body.le}

[choice of two]
Sur la table, il y avait {o.un} et {o2.un}, et {n} devait choisir.
« {o.Le} ou {o2.le} ? » demanda {n2}. « Il faut choisir. »
> {n} laissa {o2.le} à sa place et prit vite {o.le}
> {n} réfléchit un moment, écarta {o.le} et prit avec soin {o2.le}
""")

DATA = LanguageData(lexicon=_LEXICON, moods=_MOODS, devices=_DEVICES)
